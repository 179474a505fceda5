"""A study with differential privacy on one machine: four hospitals, each with a ledger of its own."""

import dataclasses

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from deployed import BUNDLE, KilledError
from site_trial import NAMES, Trial

from audit.accounting import Adjacency
from audit.ledger import Budget, BudgetLine, Ledger, Policy
from audit.log import read_events
from audit.verify import verify_run
from clients.encoders import export_features
from securefed.nodes.control import ControlStage, decode_reply, encode_request
from securefed.nodes.numbering import training_round

LOCAL = {"privacy__mode": "local", "privacy__epsilon": 8.0}


class PrivateTrial(Trial):
    """Four hospitals, each with a ledger of its own; `budgets` says what some of them have instead of 9."""

    def __init__(self, root, unit="image", budgets=None, **settings):
        self._budgets, self._unit = budgets or {}, unit
        super().__init__(root, **settings)

    def approve(self, name, *args, **more):
        if not (self.path(name) / "ledger.sqlite").exists():
            self.budget(name, self._budgets.get(name, 9.0))
        return super().approve(name, *args, **more)

    def budget(self, name, epsilon):
        signer = Ed25519PrivateKey.generate().public_key().public_bytes_raw().hex()
        path = self.path(name) / "ledger.sqlite"
        with Ledger(path) as ledger:
            budget = Budget(epsilon, 1e-5, Adjacency.ADD_OR_REMOVE_ONE, signer)
            ledger.install(Policy({BudgetLine(name, self._unit): budget}))

    def charges(self, name):
        with Ledger.existing(self.path(name) / "ledger.sqlite") as ledger:
            return ledger.charges()

    def private_log(self, name):
        (path,) = (self.path(name) / "privacy").glob("*/audit.jsonl")
        return read_events(path)


class PatientTrial(PrivateTrial):
    """The unit is a patient of two images."""

    def __init__(self, root, **settings):
        super().__init__(root, unit="patient", privacy__unit="patient", **settings)

    def place(self, name):
        self.patients(name)
        file = self.root / f"site{NAMES.index(name)}.safetensors"
        return "--data", f"features:{file}", "--encoder", f"features:{file}"

    def patients(self, name, images=2, without=0):
        """Say whom the images of a hospital show: `images` of them each patient, the first ones nobody."""
        site = f"site{NAMES.index(name)}"
        (own,) = (found for found in BUNDLE.sites if found.site == site)
        parts = {
            split: dataclasses.replace(
                own.split(split),
                patients=tuple("" if split == "train" and k < without else f"{split}{k // images}"
                               for k in range(len(own.split(split)))),
            )
            for split in ("train", "val", "test")
        }  # fmt: skip
        sites = (dataclasses.replace(own, **parts),)
        export_features(dataclasses.replace(BUNDLE, sites=sites), self.root / f"{site}.safetensors")


def of_kind(events, kind):
    return [event for event in events if event.kind == kind]


def verified(trial, run, **more):
    heads = [trial.path(name) / "heads" / f"{run}.jsonl" for name in NAMES]
    found = verify_run(trial.root / run, roster=trial.root / "roster.json", heads=heads, **more)
    assert found.is_verified, found.failed
    return {check.name: check.detail for check in found.checks}


def only_once(act):
    """A wire's change that acts on the first request of which `act` says so, by returning True."""
    done = []

    def change(way, stage, site, round_id, frame):
        if not done and act(way, stage, site, training_round(round_id)):
            done.append(True)
            raise KilledError if act.kills else ServerKilledError
        return [frame]

    return change


class ServerKilledError(Exception):
    """The server's process is gone."""


def killed_at(number, right):
    def save(folder, checkpoint):
        if checkpoint.current.number == number:
            raise ServerKilledError
        return right(folder, checkpoint)

    return save


def spend(trial, name):
    from audit.accounting import SampledGaussian
    from audit.ledger import Account, Charge

    with Ledger.existing(trial.path(name) / "ledger.sqlite") as ledger:
        charge = Charge("earlier", "earlier/1", SampledGaussian(1.0, 1.0))
        ledger.reserve(Account(name, "a" * 64, "image"), charge)


def hello(trial, folders):
    from securefed.nodes.site_run import CONTROL_VERSION

    fields = {"version": CONTROL_VERSION, "software": "x", "run_id": "run", "study": trial.digest,
              "roster": trial.study.roster.digest}  # fmt: skip
    for name in NAMES:
        decode_reply(
            ControlStage.HELLO, folders.nodes[name].handle("Hello", encode_request(ControlStage.HELLO, fields))
        )
