"""Sections about the run itself: identity, purpose and data, mechanism, rounds."""

from collections.abc import Mapping
from typing import Any

from audit.report.blocks import (
    Blocks,
    Cell,
    Code,
    Joined,
    Number,
    Verdict,
    bullets,
    code,
    decimal,
    figure,
    heading,
    pairs,
    paragraph,
    table,
    upper,
    whole,
)
from audit.report.charts import bars, timeline


def identity(report: Mapping[str, Any]) -> Blocks:
    """Return versions, digests, keys and what verification found."""
    about = report["identity"]
    checks = [(check["name"], Verdict(check["outcome"]), check["detail"]) for check in about["checks"]]
    keys = [("server", code(about["server_key"]))] if about["server_key"] else []
    keys += [(name, code(key)) for name, key in about["hospital_keys"].items()]
    source: Cell = code(about["commit"])
    if about["commit"] and about["modified"]:
        source = f"{about['commit']}, with changes that are not committed"
    facts: list[tuple[str, Cell]] = [
        ("run", about["run_id"]),
        ("method", about["method"]),
        ("begun", about["started"]),
        ("ended", about["ended"]),
        ("rounds of training", whole(about["rounds"])),
        ("model kept from round", whole(about["chosen_round"])),
        ("SHA-256 of the model", code(about["model_digest"])),
        ("SHA-256 of the configuration", code(about["config_digest"])),
        ("source code", source),
        ("events in the log", whole(about["events"])),
        ("root of the log", code(about["root"])),
        ("roster", "agreed on before the run" if about["is_pinned"] else "that came with the run"),
    ]
    return [
        *pairs("The run and its record", facts),
        *heading("Verification"),
        *table("What was checked", ("check", "outcome", "found"), checks),
        *heading("Keys and versions"),
        *pairs("Public keys (Ed25519)", keys),
        *pairs("Software", list(about["software"].items())),
    ]


def purpose(report: Mapping[str, Any]) -> Blocks:
    """Return what was declared, with the duty that each field serves, and what the data are."""
    data, declared = report["data"], report["purpose"]
    fields = [(field["name"].replace("_", " "), field["value"], field["law"]) for field in declared["fields"]]
    facts: list[tuple[str, Cell]] = [
        ("data set", data["name"]),
        ("keyed digest of the data" if data["keyed"] else "fingerprint of the data", code(data["fingerprint"])),
        ("hospitals", ", ".join(data["hospitals"])),
        ("held out", data["held_out"]),
        ("classes", ", ".join(data["classes"])),
        ("frozen encoder", data["encoder"]),
        ("SHA-256 of the encoder", code(data["encoder_digest"])),
    ]
    return [
        *table("Declared in the configuration; a dash is an open item", ("field", "declared", "duty"), fields),
        *pairs("Data and encoder", facts),
        *bullets([f"Found in the data: {line}" for line in data["warnings"]]),
    ]


def mechanism(report: Mapping[str, Any]) -> Blocks:
    """Return how updates were summed, and how large noise is against what it hides."""
    protocol = report["protocol"]
    unused = () if protocol.get("secure_aggregation") else ("ring_bits",)  # in clear nothing is sent in that width
    rows = [(name.replace("_", " "), _value(value)) for name, value in protocol.items() if name not in unused]
    noise = [(entry["mechanism"], decimal(entry["noise"]), decimal(entry["signal"])) for entry in report["noise"]]
    parts = pairs("How updates were summed", rows) or paragraph("Nothing was summed in this run.")
    if noise:
        header = ("mechanism", "norm of the noise", "largest contribution of one unit")
        longest = max(report["noise"], key=lambda entry: entry["noise"])
        drawing = bars(
            "Noise against signal",
            f"noise of norm {longest['noise']:.4g} hides contributions of norm {longest['signal']:.4g}",
            {
                "noise on the shared vector": (longest["noise"], None),
                "largest contribution of one unit": (longest["signal"], None),
            },
            unit="norm, in units of that contribution",
        )
        parts += table("Noise on the shared vector, per use", header, noise, numbers=(1, 2))
        parts += figure(drawing, "Expected norm of the noise beside the largest norm that one unit can contribute.")
    return parts


def rounds(report: Mapping[str, Any]) -> Blocks:
    """Return every round: who was in the sum, what it cost, what was sent."""
    rows: list[tuple[Cell, ...]] = [
        (
            whole(entry["round"]),
            Joined((whole(entry["survivors"]), " of ", whole(entry["cohort"]))),
            ", ".join(f"{name} ({stage})" for name, stage in entry["dropouts"].items()),
            entry["noise"],
            upper(entry["epsilon"]),
            whole(entry["bytes"]["up"]),
            whole(entry["bytes"]["down"]),
            Code(entry["aggregate_digest"][:12]),
            "done again later" if entry["superseded"] else "" if entry["trains"] else "only scores",
        )
        for entry in report["rounds"]
    ]
    aborted = _aborted(report)
    if not rows:
        return aborted or paragraph("The hospitals did not train together in this run.")
    header = ["round", "in the sum", "lost (stage)", "noise", "epsilon so far", "bytes up", "bytes down"]
    header += ["digest (begins)", "note"]
    empty = [place for place in (2, 3, 4, 8) if all(_is_empty(row[place]) for row in rows)]
    kept = [place for place in range(len(header)) if place not in empty]
    parts = table(
        "All rounds",
        [header[place] for place in kept],
        [[row[place] for place in kept] for row in rows],
        numbers=[index for index, place in enumerate(kept) if place in (4, 5, 6)],
    )
    lost = sum(len(entry["dropouts"]) for entry in report["rounds"])
    if lost:
        stages = {
            name: [entry["dropouts"].get(name) for entry in report["rounds"]] for name in report["data"]["hospitals"]
        }
        drawing = timeline("Losses", f"{lost} losses over {len(rows)} rounds", stages)
        parts += figure(drawing, "A dark square is a loss, with the first letter of the stage.")
    return [*parts, *aborted]


def _aborted(report: Mapping[str, Any]) -> Blocks:
    rows: list[tuple[Cell, ...]] = [
        (
            whole(entry["round"]),
            entry["stage"],
            entry["cause"],
            ", ".join(f"{name} ({stage})" for name, stage in entry["dropouts"].items()),
            whole(entry["bytes"]["up"]),
            whole(entry["bytes"]["down"]),
            whole(entry["event"]),
        )
        for entry in report["aborted"]
    ]
    header = ("round", "ended at", "cause", "lost (stage)", "bytes up", "bytes down", "event")
    return table("Attempts that were aborted: no sum was opened", header, rows, numbers=(4, 5, 6))


def _is_empty(cell: Cell) -> bool:
    return not cell or (isinstance(cell, Number) and cell.value is None)


def _value(value: object) -> Cell:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return Number(value, f"{value:,}") if isinstance(value, int | float) else str(value)
