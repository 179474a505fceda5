"""The files beside a log against what the log says of them: configuration, results, model and byte counts."""

import csv
import hashlib
import struct
import tomllib
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from audit.canonical import encode_canonical
from audit.check_releases import check_releases
from audit.check_sites import check_sites
from audit.check_summary import check_summary
from audit.check_terms import check_terms
from audit.errors import EvidenceError, NothingToCompareError
from audit.history import RunHistory
from audit.regular_file import parse_json, read_regular, shown

_WAYS = {"upload": "up", "download": "down", "up": "up", "down": "down"}
_FLOAT32 = 4
"""Bytes of a parameter."""

_MAX_HEADER = 100 * 2**20
_RESULTS = ("summary.json", "fam.safetensors", "model_card.md", "report.json")


def check_config(folder: Path, history: RunHistory) -> str | None:
    """Check that config.toml, the configuration in the log and its digest are one, and that the log keeps to it.

    Raises:
        EvidenceError: They are not, or hospitals, protocol, privacy claim or privacy events say something else.
    """
    event = history.last("config")
    if event is None:
        check_sites(history)
        check_terms(history)
        return None
    if hashlib.sha256(encode_canonical(event.fields["values"])).hexdigest() != event.fields["digest"]:
        raise EvidenceError(event.seq, "the configuration in the log does not have the digest beside it")
    path = folder / "config.toml"
    try:
        values = tomllib.loads(read_regular(path).decode("utf-8"))
        digest = hashlib.sha256(encode_canonical(values)).hexdigest()
    except (OSError, ValueError, RecursionError) as error:
        raise EvidenceError(event.seq, f"config.toml cannot be read ({error})") from error
    if digest != event.fields["digest"]:
        raise EvidenceError(event.seq, "config.toml is not the configuration that the run was made with")
    check_sites(history)
    check_terms(history)
    check_releases(history)
    return f"config.toml is the one of the run ({digest[:16]}...)"


def check_files(folder: Path, history: RunHistory) -> str | None:
    """Check the digest of every result file that the end of the log names.

    Raises:
        EvidenceError: A file is missing, is not the one of the run, or is one that the end of the log must name; or
            summary.json says something else than the log.
        NothingToCompareError: The log has no end, so that nothing vouches for what lies in the folder.
    """
    if history.completed is None:
        present = [name for name in _RESULTS if (folder / name).exists()]
        if present:
            raise NothingToCompareError(f"the log has no end that vouches for {', '.join(present)}")
        return None
    files = history.completed.fields["files"]
    assert isinstance(files, Mapping)  # noqa: S101 (narrows the type)
    for name in _vouched_for(history):
        if name not in files:
            raise EvidenceError(history.completed.seq, f"the end of the log states no digest of {name}")
    for name, expected in files.items():
        path = folder / name
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise EvidenceError(history.completed.seq, f"the log names a file outside of the run folder: {name}")
        try:
            digest = hashlib.sha256(read_regular(path)).hexdigest()
        except OSError as error:
            raise EvidenceError(history.completed.seq, f"{name} is missing ({error.strerror})") from error
        if digest != expected:
            raise EvidenceError(history.completed.seq, f"{name} was changed after the run")
    check_summary(_read_summary(folder, history.completed.seq), history)
    return f"{', '.join(files)} are as the run left them"


def _vouched_for(history: RunHistory) -> list[str]:
    """What every run leaves; a shared model and byte counts where there were rounds."""
    return ["config.toml", "summary.json", *(("fam.safetensors", "bytes.csv") if history.rounds else ())]


def check_model(folder: Path, history: RunHistory) -> str | None:
    """Check that fam.safetensors holds the model whose digest the log states."""
    if history.completed is None or "model_digest" not in history.completed.fields:
        return None
    seq, expected = history.completed.seq, history.completed.fields["model_digest"]
    metadata, tensors = _read_safetensors(folder / "fam.safetensors", seq)
    if metadata.get("fam_sha256") != expected:
        raise EvidenceError(seq, "fam.safetensors says it is another model than the log")
    try:
        names = parse_json(metadata["layout"])
        beside = sorted(set(tensors) - {*names, "text_features"})
        digest = hashlib.sha256(b"".join(tensors[name] for name in names)).hexdigest()
    except (ValueError, TypeError, KeyError) as error:
        raise EvidenceError(seq, f"the layout in fam.safetensors is missing or damaged ({error})") from error
    if beside:
        raise EvidenceError(seq, f"fam.safetensors holds {beside[0]}, which its layout does not name")
    if digest != expected:
        raise EvidenceError(seq, "the parameters in fam.safetensors are not those of the log")
    _check_described(history, sum(len(tensors[name]) for name in names) // _FLOAT32, metadata)
    _check_width(history, tensors)
    return f"the parameters in fam.safetensors are those of the log ({str(expected)[:16]}...)"


def _check_described(history: RunHistory, parameters: int, metadata: Mapping[str, str]) -> None:
    """The log describes a model as long as this one, for the same classes where the file names them."""
    protocol, data = history.last("protocol_described"), history.last("data_described")
    if protocol is not None and protocol.fields["dimension"] != parameters:
        stated = f"states a dimension of {protocol.fields['dimension']}"
        raise EvidenceError(protocol.seq, f"{stated}, fam.safetensors has {parameters} parameters")
    if data is None or "classes" not in metadata:
        return
    try:
        classes = parse_json(metadata["classes"])
    except (ValueError, TypeError) as error:
        raise EvidenceError(data.seq, f"the classes in fam.safetensors cannot be read ({error})") from error
    if classes != data.fields["classes"]:
        reason = f"states classes {shown(data.fields['classes'])}, fam.safetensors has {shown(classes)}"
        raise EvidenceError(data.seq, reason)


def _check_width(history: RunHistory, tensors: Mapping[str, bytes]) -> None:
    """The features of the class names, where the file has them, are as wide as the encoder is said to be."""
    encoder, data = history.last("encoder_described"), history.last("data_described")
    if encoder is None or data is None or "text_features" not in tensors:
        return
    width: Any = encoder.fields["embed_dim"]
    classes: Any = data.fields["classes"]
    if len(tensors["text_features"]) != _FLOAT32 * width * len(classes):
        reason = f"states an embed_dim of {width}, the features of {len(classes)} classes in fam.safetensors"
        raise EvidenceError(encoder.seq, f"{reason} have another")


def check_bytes(folder: Path, history: RunHistory) -> str | None:
    """Check bytes.csv and summary.json against the sums over all that the log says was sent.

    Raises:
        EvidenceError: They do not add up.
        NothingToCompareError: The run has not ended: its table may be a round ahead or behind.
    """
    if not history.rounds:
        return None
    up, down = (history.byte_total(way, all_sent=True) for way in ("up", "down"))
    counted = f"{up} bytes up and {down} down over {len(history.results)} rounds"
    if again := len(history.attempts) - len(history.results):
        counted += f" and {again} aborted or done again"
    if history.cut_short:
        counted += f" (attempts cut short, of which nothing was counted: {history.cut_short})"
    table = folder / "bytes.csv"
    if history.completed is None:
        reason = "by the log alone: the run did not reach its end, and bytes.csv was not compared"
        raise NothingToCompareError(f"{counted}, {reason}")
    _check_table(table, history)
    seq = history.completed.seq
    stated = _read_summary(folder, seq).get("communication", {})
    if not isinstance(stated, Mapping):
        raise EvidenceError(seq, "summary.json: communication is no object")
    for name, total in (("upload_bytes", up), ("download_bytes", down)):
        if stated.get(name) != total:
            raise EvidenceError(seq, f"summary.json states {name} {shown(stated.get(name))}, the log sums to {total}")
    return f"{counted}, summed from the log"


def _check_table(path: Path, history: RunHistory) -> None:
    logged: Counter[tuple[int, str, str, str, str]] = Counter()
    events = {}
    for attempt in history.attempts:
        events[attempt.number] = attempt.seq
        for row in attempt.byte_rows():
            logged[row.round, row.client, row.way, row.stage, row.kind] += row.bytes
    listed: Counter[tuple[int, str, str, str, str]] = Counter()
    try:
        for line in csv.DictReader(read_regular(path).decode("utf-8").splitlines(keepends=True)):
            way = _WAYS[line["direction"]]
            listed[int(line["round"]), line["site"], way, line["stage"], line["kind"]] += int(line["bytes"])
    except (OSError, ValueError, TypeError, KeyError, csv.Error) as error:
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
        value = parse_json(read_regular(path))
    except (OSError, ValueError) as error:
        raise EvidenceError(seq, f"summary.json cannot be read ({error})") from error
    if not isinstance(value, dict):
        raise EvidenceError(seq, "summary.json is no object")
    return value


def _read_safetensors(path: Path, seq: int) -> tuple[Mapping[str, str], Mapping[str, bytes]]:
    """Metadata and raw tensors of a file: 8 bytes of header length, a JSON header, little-endian data."""
    try:
        content = read_regular(path)
        (length,) = struct.unpack("<Q", content[:8])
        if length > min(_MAX_HEADER, len(content)):
            raise EvidenceError(seq, f"{path.name} is damaged (its header has {length} bytes)")
        header = parse_json(content[8 : 8 + length])
        metadata = header.pop("__metadata__", {})
        if not isinstance(metadata, Mapping):
            raise TypeError("its metadata are no object")
        data = content[8 + length :]
        tensors = {name: data[slice(*entry["data_offsets"])] for name, entry in header.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, struct.error) as error:
        raise EvidenceError(seq, f"{path.name} cannot be read ({error})") from error
    return metadata, tensors
