"""Bytes, summed from the log: by hospital, stage, kind and round, and against what other methods would send."""

from collections import Counter, defaultdict
from typing import Any

from audit.history import RunHistory

FEDAVG_CLIP_BYTES = 151_277_313 * 4
"""FedAvg of the whole of CLIP ViT-B/32 sends its 151,277,313 parameters (open_clip ViT-B-32) in float32 each way."""

PAPER_FAM_BYTES = 1_426_063
"""One compressed FAM as FedMedCLIP (AAAI 2026) reports it, without secure aggregation: 1.36 MiB (it writes MB, and 2.01
MB for 526,336 parameters in float32, which are 2.01 MiB)."""


def communication_section(history: RunHistory) -> dict[str, Any]:
    """Return every total; `up` is from the hospitals to the server.

    `total` is of the rounds that the result stands on, all else of everything that was counted, rounds aborted or done
    again among it; `cut_short` are attempts of which nothing was. What a client sends a round is the mean over the
    rounds of the result that moved the model.
    """
    clients: dict[str, Counter[str]] = defaultdict(Counter)
    stages: dict[str, Counter[str]] = defaultdict(Counter)
    kinds: dict[str, Counter[str]] = defaultdict(Counter)
    rounds: dict[int, Counter[str]] = defaultdict(Counter)
    for attempt in history.attempts:
        per_kind = rounds[attempt.number]
        for row in attempt.byte_rows():
            clients[row.client][row.way] += row.bytes
            stages[row.stage][row.way] += row.bytes
            kinds[row.kind][row.way] += row.bytes
            if row.way == "up":
                per_kind[row.kind] += row.bytes
    client_rounds = sum(len(record.bytes) for record in history.training)
    mean = {
        way: sum(record.total(way) for record in history.training) / client_rounds if client_rounds else 0.0
        for way in ("up", "down")
    }
    up, down = history.byte_total("up"), history.byte_total("down")
    return {
        "total": {"up": up, "down": down},
        "all_sent": {"up": history.byte_total("up", all_sent=True), "down": history.byte_total("down", all_sent=True)},
        "client_rounds": client_rounds,
        "per_client_round": mean,
        "by_client": {name: _both(counts) for name, counts in sorted(clients.items())},
        "by_stage": {name: _both(counts) for name, counts in stages.items()},
        "by_kind": {name: _both(counts) for name, counts in sorted(kinds.items())},
        "by_round": [{"round": number, "kinds": dict(per_kind)} for number, per_kind in sorted(rounds.items())],
        "comparison": _comparison(history, mean["up"]),
        **({"cut_short": history.cut_short} if history.cut_short else {}),
    }


def _comparison(history: RunHistory, mean: float) -> list[dict[str, Any]]:
    """What a hospital would send a round, beside what it sent."""
    entries = [("measured here, mean with losses", mean)]
    protocol = history.last("protocol_described")
    if protocol is not None:
        fields: Any = protocol.fields
        if fields["secure_aggregation"] and "ring_bits" in fields:  # in clear nothing is sent in the width of the ring
            sent = fields.get("values", {}).get("vector_length", fields["dimension"])
            entries.append(("ring bits x coordinates / 8", fields["ring_bits"] * sent / 8))
        entries.append(("the same update in float32", 4.0 * fields["dimension"]))
    entries.append(("one FAM as the paper reports it", float(PAPER_FAM_BYTES)))
    entries.append(("FedAvg of the whole CLIP ViT-B/32", float(FEDAVG_CLIP_BYTES)))
    return [{"name": name, "bytes": size, "ratio": size / mean if mean else None} for name, size in entries]


def _both(counts: Counter[str]) -> dict[str, int]:
    return {"up": counts["up"], "down": counts["down"]}
