"""What runs in a process of a crew (clients.method.crew): it waits for jobs until its pipe is closed."""

import traceback
from multiprocessing.connection import Connection
from typing import Any

import torch

from clients.method import shared_arrays
from clients.method.crew import Beginning, Failed, HospitalRows, Job, on_desk
from clients.method.parts import build_model
from clients.method.prediction import Validated
from clients.method.shared_arrays import Arrays
from clients.method.workbench import TrainingRows, Workbench


def main(descriptor: int) -> None:
    """Do jobs from a pipe, whose file descriptor is given, until its other end is closed."""
    connection: Connection[Any, Any] = Connection(descriptor)
    torch.set_num_threads(1)
    try:
        office = _Office(connection.recv())
        connection.send(None)
        while True:
            job: Job = connection.recv()
            try:
                answer: Validated | Failed | None = office.do(job)
            except Exception as error:  # noqa: BLE001 (it is raised again at the other end)
                answer = Failed(f"{type(error).__name__}: {error}", traceback.format_exc())
            connection.send(answer)
    except (EOFError, OSError):
        return  # nobody is at the other end any more


class _Office:
    """A workbench, the desk, and the rows of all hospitals."""

    def __init__(self, beginning: Beginning) -> None:
        self._seed = beginning.seed
        self._rows = _by_site(shared_arrays.views(beginning.rows_descriptor, beginning.rows))
        self._vector, self._private = on_desk(shared_arrays.views(beginning.desk_descriptor, beginning.desk))
        model = beginning.model
        built = build_model(model.text_features, model.logit_scale, model.settings, model.method, "", 0, "cpu")
        assert built is not None  # noqa: S101 (methods without a model have no crew)
        self._bench = Workbench(built, model.method)

    def do(self, job: Job) -> Validated | None:
        rows, private = self._rows[job.site], dict(self._private)  # another mapping: the desk holds something new
        if not job.round_number:
            return self._bench.validate(rows.val_features, rows.val_labels, self._vector, private)
        training = TrainingRows.on("cpu", job.site, self._seed, rows.features, rows.labels, rows.class_weights)
        trained, update = self._bench.train_round(training, self._vector, private, job.round_number)
        for name, tensor in self._private.items():
            tensor.copy_(trained[name])
        self._vector[...] = update
        return None


def _by_site(arrays: Arrays) -> dict[str, HospitalRows]:
    sites: dict[str, dict[str, Any]] = {}
    for name, array in arrays.items():
        site, _, part = name.rpartition("/")
        sites.setdefault(site, {"class_weights": None})[part] = array
    return {site: HospitalRows(**parts) for site, parts in sites.items()}
