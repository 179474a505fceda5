"""The folder of one run: where each result lies, written so that a crash leaves it readable."""

import csv
import io
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from datetime import datetime
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load_file, save

from audit.data_name import DATA_KEY, named_data
from audit.durable import append_lines, cut_incomplete, write_whole
from audit.rules import NAME, FieldError
from audit.site_folder import site_folder_name
from securefed.errors import NoRunFolderError, RunFolderError

Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class MetricRow:
    """One line of metrics.csv; `round` 0 is the model before training, -1 the final evaluation."""

    round: int
    site: str
    split: str
    part: str
    metric: str
    value: float


@dataclass(frozen=True)
class ByteRow:
    """One line of bytes.csv: the bytes of one kind in one encoded frame between the server and a site."""

    round: int
    site: str
    direction: str
    stage: str
    kind: str
    bytes: int


class RunFolder:
    """Paths and atomic writes of one run.

    A folder is used by one run only: `create` refuses one that holds anything.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config = path / "config.toml"
        self.log = path / "audit.jsonl"
        self.metrics = path / "metrics.csv"
        self.bytes = path / "bytes.csv"
        self.summary = path / "summary.json"
        self.evaluation = path / "evaluation.json"
        self.model = path / "fam.safetensors"
        self.card = path / "model_card.md"
        self.hospital = path / "hospital.toml"  # of results that a hospital of a deployment keeps: its site.toml then
        self.checkpoint = path / "checkpoint"
        self.data_key = path / DATA_KEY
        self.plots = path / "plots"

    @property
    def name(self) -> str:
        """What the record calls the run: the last part of the path; of "." and ".." that of the folder they lead to."""
        return self.path.name if self.path.name not in ("", "..") else self.path.resolve().name

    @classmethod
    def create(cls, base: Path, name: str, now: datetime, exact: Path | None = None) -> "RunFolder":
        """Make a new folder `base/<UTC time>-<name>` (or `exact`), never one that already holds something.

        Args:
            base: Folder of all runs.
            name: What tells runs apart, in characters that a path can hold.
            now: Start of the run in UTC.
            exact: The very folder to use instead.

        Raises:
            RunFolderError: The folder cannot be made or is not empty.
        """
        stem = f"{now:%Y%m%dT%H%M%SZ}-{name}"
        if exact is None:
            require_run_name(base / stem)
        else:
            _require_unicode(exact)
        for attempt in range(1000):
            path = exact if exact is not None else base / (stem if attempt == 0 else f"{stem}-{attempt}")
            try:
                path.mkdir(parents=True)
            except FileExistsError:
                if exact is None:
                    continue
                if not path.is_dir() or any(path.iterdir()):
                    raise RunFolderError(
                        path, "holds something already and a run never overwrites; name another folder with --output"
                    ) from None
            except OSError as error:
                raise RunFolderError(
                    path, f"cannot be made ({error.strerror}); name a writable place with --output"
                ) from error
            folder = cls(path)
            folder._probe()
            return folder
        raise RunFolderError(base, "holds a thousand runs of this second; name another folder with --output")

    @classmethod
    def open(cls, path: Path) -> "RunFolder":
        """Return the folder of an earlier run; raises NoRunFolderError where there is none."""
        folder = cls(path)
        if not path.is_dir():
            raise NoRunFolderError(path)
        if not folder.config.is_file():
            raise NoRunFolderError(path, "config.toml is missing")
        return folder

    def site(self, site: str) -> Path:
        """Return the folder of a site's own files (its MLP), made with access for its owner only."""
        path = self.path / "sites" / site_folder_name(site)
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
        return path

    def write_json(self, path: Path, value: Mapping[str, Any]) -> None:
        """Write a JSON file atomically; NaN is refused."""
        self._write(path, (json.dumps(value, indent=2, allow_nan=False, ensure_ascii=False) + "\n").encode())

    def results(self) -> tuple[Path, ...]:
        """Return the files whose digests the end of the log states."""
        return self.config, self.metrics, self.bytes, self.evaluation, self.model, self.summary

    def name_of_data(self, fingerprint: str, *, keyed: bool) -> str:
        """Return what the run's record calls data of a fingerprint; raises KeyFileError where its key is gone."""
        return named_data(self.data_key, fingerprint) if keyed else fingerprint

    def write_text(self, path: Path, text: str) -> None:
        """Write a file of UTF-8 text atomically."""
        self._write(path, text.encode())

    def read_json(self, path: Path) -> dict[str, Any]:
        """Return a JSON object of this folder; raises RunFolderError where it is missing or damaged."""
        try:
            value = json.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise RunFolderError(path, "is missing; finish the run with simulate --resume") from error
        except ValueError as error:
            raise RunFolderError(path, f"is damaged ({error})") from error
        if not isinstance(value, dict):
            raise RunFolderError(path, "is damaged (not an object)")
        return value

    def write_arrays(self, path: Path, arrays: Arrays, metadata: Mapping[str, str], *, private: bool = False) -> None:
        """Write a safetensors file atomically; `private` gives access to its owner only.

        The same arrays and metadata give the same bytes.
        """
        try:
            saved = save({name: np.asarray(array, order="C") for name, array in arrays.items()}, dict(metadata))
            write_whole(path, _ordered(saved), 0o600 if private else 0o644)
        except (OSError, SafetensorError) as error:
            raise unwritable(path, error) from error

    def read_arrays(self, path: Path) -> Arrays:
        """Read a safetensors file; raises RunFolderError where it is missing or damaged."""
        try:
            return load_file(path)
        except (OSError, SafetensorError) as error:
            raise RunFolderError(path, f"cannot be read ({error}); is the run complete?") from error

    def read_metadata(self, path: Path) -> dict[str, str]:
        """Return the metadata of a safetensors file; raises RunFolderError where it is missing or damaged."""
        try:
            with safe_open(path, "np") as file:
                return dict(file.metadata() or {})
        except (OSError, SafetensorError) as error:
            raise RunFolderError(path, f"cannot be read ({error}); is the run complete?") from error

    def append_rows(self, path: Path, rows: Iterable[MetricRow | ByteRow]) -> None:
        """Append lines to metrics.csv or bytes.csv, with a header where the file has none; all are on disk, or none."""
        rows = list(rows)
        if not rows:
            return
        names, lines = [field.name for field in fields(rows[0])], io.StringIO()
        csv.writer(lines).writerows(map(attrgetter(*names), rows))
        try:
            append_lines(path, lines.getvalue().encode(), f"{','.join(names)}\r\n".encode())
        except OSError as error:
            raise unwritable(path, error) from error

    def replace_rows(self, path: Path, rows: Iterable[MetricRow | ByteRow]) -> None:
        """Write metrics.csv or bytes.csv anew; a crash in between leaves less, and whoever resumes does it again."""
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise unwritable(path, error) from error
        self.append_rows(path, rows)

    def keep_rows_until(self, path: Path, round_number: int) -> set[int]:
        """Drop the lines of rounds after `round_number`, which a resumed run makes again; return the rounds kept.

        What a crash left of a line is dropped as well: a file without a whole header holds nothing.
        """
        if not path.exists():
            return set()
        try:
            cut_incomplete(path)
        except OSError as error:
            raise unwritable(path, error) from error
        with path.open(newline="", encoding="utf-8") as stream:
            header, *lines = list(csv.reader(stream)) or [[]]
        kept = [line for line in lines if len(line) == len(header) and 0 <= int(line[0]) <= round_number]
        if header:
            text = "".join(",".join(_quoted(cell) for cell in line) + "\r\n" for line in [header, *kept])
            self._write(path, text.encode())
        return {int(line[0]) for line in kept}

    def _probe(self) -> None:
        try:
            probe = self.path / ".writable"
            probe.touch()
            probe.unlink()
        except OSError as error:
            raise unwritable(self.path, error) from error

    def _write(self, path: Path, content: bytes) -> None:
        try:
            write_whole(path, [content])
        except OSError as error:
            raise unwritable(path, error) from error


def read_metric_rows(path: Path) -> list[MetricRow]:
    """Read metrics.csv."""
    with path.open(newline="", encoding="utf-8") as stream:
        return [
            MetricRow(
                int(line["round"]), line["site"], line["split"], line["part"], line["metric"], float(line["value"])
            )
            for line in csv.DictReader(stream)
        ]


def read_byte_rows(path: Path) -> list[ByteRow]:
    """Read bytes.csv; empty where the run sent nothing."""
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as stream:
        return [
            ByteRow(
                int(line["round"]), line["site"], line["direction"], line["stage"], line["kind"], int(line["bytes"])
            )
            for line in csv.DictReader(stream)
        ]


def require_run_name(path: Path | None) -> None:
    """Refuse a folder after which no run can be called (audit/rules.py has the rule); raises RunFolderError.

    None is a folder that is still to be named.
    """
    if path is None:
        return
    _require_unicode(path)
    name = RunFolder(path).name
    try:
        NAME.check(name, "")
    except FieldError as error:
        raise RunFolderError(
            path,
            f"the run would be called {name!r}, which {error.reason}: a name has 1 to 200 characters, no control "
            "characters and no blank at its ends; name another folder with --output",
        ) from error


def _require_unicode(path: Path) -> None:
    """Refuse a folder whose name, which is the run's id in the log, has bytes that are no text in this locale."""
    try:
        path.name.encode()
    except UnicodeEncodeError as error:
        raise RunFolderError(
            path, "its name is no valid Unicode here; name another folder with --output, or set LC_ALL=C.UTF-8"
        ) from error


def _quoted(cell: str) -> str:
    return '"' + cell.replace('"', '""') + '"' if any(mark in cell for mark in ',"\r\n') else cell


def unwritable(path: Path, error: OSError | SafetensorError) -> RunFolderError:
    """Return the error that says why a result cannot be written, and what to do."""
    reason = (error.strerror if isinstance(error, OSError) else None) or " ".join(str(error).split())[:120]
    step = "see that the disk works and has space, or name another folder"
    return RunFolderError(path, f"cannot be written ({reason}); {step}")


def _ordered(saved: bytes) -> tuple[bytes, memoryview]:
    """Return head and tensors of a safetensors file, the metadata sorted: the library writes it in an order of chance.

    The format: u64 length of a JSON object, the object filled up with spaces to a multiple of 8 bytes, the tensors.
    """
    length = int.from_bytes(saved[:8], "little")
    head = json.loads(saved[8 : 8 + length])
    if "__metadata__" in head:
        head["__metadata__"] = dict(sorted(head["__metadata__"].items()))
    text = json.dumps(head, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text, memoryview(saved)[8 + length :]
