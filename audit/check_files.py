"""The files beside a log against what the log says of them: configuration, results, model and byte counts."""

import csv
import hashlib
import json
import struct
import tomllib
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from audit.canonical import CanonicalError, encode_canonical
from audit.errors import EvidenceError
from audit.history import RunHistory

_WAYS = {"upload": "up", "download": "down", "up": "up", "down": "down"}
_MAX_HEADER = 100 * 2**20


def check_config(folder: Path, history: RunHistory) -> str | None:
    """Check that config.toml, the configuration in the log and its digest are one and the same."""
    event = history.last("config")
    if event is None:
        return None
    if hashlib.sha256(encode_canonical(event.fields["values"])).hexdigest() != event.fields["digest"]:
        raise EvidenceError(event.seq, "the configuration in the log does not have the digest beside it")
    path = folder / "config.toml"
    try:
        values = tomllib.loads(path.read_bytes().decode("utf-8"))
        digest = hashlib.sha256(encode_canonical(values)).hexdigest()
    except (OSError, ValueError, CanonicalError) as error:
        raise EvidenceError(event.seq, f"config.toml cannot be read ({error})") from error
    if digest != event.fields["digest"]:
        raise EvidenceError(event.seq, "config.toml is not the configuration that the run was made with")
    return f"config.toml is the one of the run ({digest[:16]}...)"


def check_files(folder: Path, history: RunHistory) -> str | None:
    """Check the digest of every result file that the end of the log names."""
    if history.completed is None:
        return None
    files = history.completed.fields["files"]
    assert isinstance(files, Mapping)  # noqa: S101 (narrows the type)
    for name, expected in files.items():
        path = folder / name
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise EvidenceError(history.completed.seq, f"the log names a file outside of the run folder: {name}")
        try:
            with path.open("rb") as stream:
                digest = hashlib.file_digest(stream, "sha256").hexdigest()
        except OSError as error:
            raise EvidenceError(history.completed.seq, f"{name} is missing ({error.strerror})") from error
        if digest != expected:
            raise EvidenceError(history.completed.seq, f"{name} was changed after the run")
    return f"{', '.join(files)} are as the run left them"


def check_model(folder: Path, history: RunHistory) -> str | None:
    """Check that fam.safetensors holds the model whose digest the log states."""
    if history.completed is None or "model_digest" not in history.completed.fields:
        return None
    seq, expected = history.completed.seq, history.completed.fields["model_digest"]
    metadata, tensors = _read_safetensors(folder / "fam.safetensors", seq)
    if metadata.get("fam_sha256") != expected:
        raise EvidenceError(seq, "fam.safetensors says it is another model than the log")
    layout = metadata.get("layout")
    if layout is None:
        return f"fam.safetensors names the model of the log ({str(expected)[:16]}...)"
    try:
        names = json.loads(layout)
        digest = hashlib.sha256(b"".join(tensors[name] for name in names)).hexdigest()
    except (ValueError, TypeError, KeyError) as error:
        raise EvidenceError(seq, f"the layout in fam.safetensors is damaged ({error})") from error
    if digest != expected:
        raise EvidenceError(seq, "the parameters in fam.safetensors are not those of the log")
    return f"the parameters in fam.safetensors are those of the log ({str(expected)[:16]}...)"


def check_bytes(folder: Path, history: RunHistory) -> str | None:
    """Check bytes.csv and summary.json against the sums over the log's rounds."""
    if not history.rounds:
        return None
    up, down = history.byte_total("up"), history.byte_total("down")
    table = folder / "bytes.csv"
    if history.completed is not None:
        if table.exists():
            _check_table(table, history)
        stated = _read_summary(folder, history.completed.seq).get("communication", {})
        for name, total in (("upload_bytes", up), ("download_bytes", down)):
            if name in stated and stated[name] != total:
                seq = history.completed.seq
                raise EvidenceError(seq, f"summary.json states {name} {stated[name]}, the log sums to {total}")
    return f"{up} bytes up and {down} down over {len(history.results)} rounds, summed from the log"


def _check_table(path: Path, history: RunHistory) -> None:
    logged: Counter[tuple[int, str, str, str, str]] = Counter()
    events = {}
    for record in history.results:
        events[record.number] = record.seq
        for row in record.byte_rows():
            logged[row.round, row.client, row.way, row.stage, row.kind] += row.bytes
    listed: Counter[tuple[int, str, str, str, str]] = Counter()
    try:
        with path.open(newline="", encoding="utf-8") as stream:
            for line in csv.DictReader(stream):
                way = _WAYS[line["direction"]]
                listed[int(line["round"]), line["site"], way, line["stage"], line["kind"]] += int(line["bytes"])
    except (OSError, ValueError, KeyError, csv.Error) as error:
        raise EvidenceError(-1, f"bytes.csv cannot be read ({error})") from error
    for key in sorted({*logged, *listed}):
        if logged[key] != listed[key]:
            number, client, way, stage, kind = key
            what = f"round {number}, {client}, {way}, {stage}, {kind}"
            seq = events.get(number, -1)
            raise EvidenceError(seq, f"{what}: {listed[key]} bytes in bytes.csv, {logged[key]} in the log")


def _read_summary(folder: Path, seq: int) -> Mapping[str, Any]:
    path = folder / "summary.json"
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise EvidenceError(seq, f"summary.json cannot be read ({error})") from error
    if not isinstance(value, dict):
        raise EvidenceError(seq, "summary.json is no object")
    return value


def _read_safetensors(path: Path, seq: int) -> tuple[Mapping[str, str], Mapping[str, bytes]]:
    """Metadata and raw tensors of a file: 8 bytes of header length, a JSON header, little-endian data."""
    try:
        content = path.read_bytes()
        (length,) = struct.unpack("<Q", content[:8])
        if length > min(_MAX_HEADER, len(content)):
            raise EvidenceError(seq, f"{path.name} is damaged (its header has {length} bytes)")
        header = json.loads(content[8 : 8 + length])
        metadata = header.pop("__metadata__", {})
        data = content[8 + length :]
        tensors = {name: data[slice(*entry["data_offsets"])] for name, entry in header.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, struct.error) as error:
        raise EvidenceError(seq, f"{path.name} cannot be read ({error})") from error
    return metadata, tensors
