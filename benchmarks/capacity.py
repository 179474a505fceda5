"""Bytes, seconds and memory of one server and its sites for 5 to 10,000 clients: byte formula and measured costs.

Run from the root of the repository::

    python benchmarks/capacity.py --output docs/results

Bytes are exact (protocols/traffic.py). Seconds are the measured cost of each operation
(docs/results/secure-aggregation.json; adding one vector is measured here) times how often the protocol does it, on one
core; what the network adds is stated apart, for the links named in ASSUMPTIONS. Nothing is run with 10,000 clients: a
second table shows how far the model is from the rounds that were run with 10, 50, 100 and 1,000.
"""

import argparse
import json
import math
import platform
import statistics
import time
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

from clients.method import TrainingSettings, vector_layout
from protocols.masking import RunningSum
from protocols.packing import pack, unpack
from protocols.plan import plan
from protocols.ring import lane_dtype
from protocols.vectors import MaskedVector

CLIENTS = (5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000)
COORDINATES = sum(math.prod(shape) for _, shape in vector_layout(512, TrainingSettings.default()))
"""FAM of a CLIP of width 512, as hospitals share it by default."""

DIMENSION = COORDINATES + 2
"""With two counters: score and clamped coordinates."""

PAYLOAD = 4 * COORDINATES
"""The model in float32."""

ASSUMPTIONS = {
    "corrupt": 0.2,
    "lost in a round": 0.1,
    "value bits": 16,
    "threat model": "active",
    "server link, bytes a second each way": 125_000_000,
    "site link up, bytes a second": 2_500_000,
    "site link down, bytes a second": 12_500_000,
    "round trip, seconds": 0.05,
    "training at a site, seconds": 0.0,
}
"""1 Gbit/s at the server, 20 and 100 Mbit/s at a site, 50 ms; training is left out, since it does not depend on n."""


def unit_costs(measured: dict[str, Any], dimension: int) -> dict[str, float]:
    """Return seconds of one pad, one neighbour at a client, one share, and adding one vector at the server."""
    masking, shamir = measured["masking"], measured["shamir"]
    ks = sorted(map(int, masking))
    slope = {
        kind: float(np.polyfit(ks, [masking[str(k)][kind] for k in ks], 1)[0])
        for kind in ("pads", "pads and agreement")
    }
    bits = 26
    packed = pack(np.arange(dimension, dtype=np.uint64) % (1 << bits), bits)
    running, times = RunningSum(dimension, bits), []
    for _ in range(9):
        start = time.process_time()
        lanes = unpack(packed, dimension, bits).astype(lane_dtype(bits))
        running.add(MaskedVector(lanes, bits))
        times.append(time.process_time() - start)
    return {
        "pad": slope["pads"],
        "neighbour": slope["pads and agreement"],
        "split per neighbour": shamir["1000"]["split"] / 1000,
        "rebuild": shamir["100"]["combine"],
        "add a vector": statistics.median(times),
    }


def server_seconds(n: int, k: int, lost: int, unit: dict[str, float]) -> float:
    """Return processor seconds of a server: it adds n - lost vectors and takes the pads out of the sum."""
    survivors = n - lost
    pads = survivors + lost * k * survivors / n
    return survivors * unit["add a vector"] + pads * unit["pad"] + n * unit["rebuild"]


def row(n: int, unit: dict[str, float]) -> dict[str, Any]:
    """Return everything about n clients."""
    planned = plan(
        n, ASSUMPTIONS["corrupt"], ASSUMPTIONS["lost in a round"], vector_length=DIMENSION, payload_bytes=PAYLOAD
    )
    up = sum(stage.up for stage in planned.traffic.values())
    down = sum(stage.down for stage in planned.traffic.values())
    k, lost = planned.neighbours, planned.dropouts
    relayed = sum(stage.up for name, stage in planned.traffic.items() if name.value == "ShareKeys")
    lane = np.dtype(lane_dtype(planned.ring_bits)).itemsize
    client = (k + 1) * unit["neighbour"] + k * unit["split per neighbour"]
    trips = len(planned.traffic) * ASSUMPTIONS["round trip, seconds"]
    at_server = n * max(up, down) / ASSUMPTIONS["server link, bytes a second each way"]
    at_site = up / ASSUMPTIONS["site link up, bytes a second"] + down / ASSUMPTIONS["site link down, bytes a second"]
    server = server_seconds(n, k, lost, unit)
    return {
        "clients": n,
        "neighbours": k,
        "threshold": planned.threshold,
        "ring bits": planned.ring_bits,
        "bytes up a client": up,
        "bytes down a client": down,
        "bytes at the server": n * (up + down),
        "processor seconds of a client": client,
        "processor seconds of the server": server,
        "network seconds": max(at_server, at_site) + trips,
        "round seconds": client + server + max(at_server, at_site) + trips,
        "server memory": DIMENSION * (lane + 8) + PAYLOAD + n * relayed + up,
    }


def against_measured(measured: dict[str, Any], unit: dict[str, float]) -> list[dict[str, Any]]:
    """Return the model beside the rounds that were run in one process: all clients and the server on one core."""
    found = []
    for run in measured["round"].values():
        n, k = run["clients"], run["neighbours"]
        modelled = n * ((k + 1) * unit["neighbour"] + k * unit["split per neighbour"])
        modelled += server_seconds(n, k, run["lost"], unit)
        compared = {"modelled": modelled, "measured": run["cpu"], "ratio": modelled / run["cpu"]}
        found.append({"clients": n, "neighbours": k, **compared})
    return found


def _line(r: dict[str, Any]) -> str:
    return (
        f"| {r['clients']:,} | {r['neighbours']} / {r['threshold']} | {r['bytes up a client'] / 1e6:.2f} MB "
        f"| {r['bytes down a client'] / 1e6:.2f} MB | {r['bytes at the server'] / 1e9:.2f} GB "
        f"| {r['processor seconds of a client']:.2f} s | {r['processor seconds of the server']:.1f} s "
        f"| {r['network seconds']:.1f} s | {r['round seconds']:.0f} s | {r['server memory'] / 2**20:,.0f} MiB |"
    )


def table(rows: list[dict[str, Any]], checks: list[dict[str, Any]]) -> str:
    """Return the Markdown table."""
    head = (
        "| clients | k / t | up a client | down a client | at the server | client | server | network | round | memory |"
    )
    lines = [head, "|" + "---:|" * 10]
    lines += [_line(r) for r in rows]
    lines += ["", "| clients, in one process | k | modelled | measured | ratio |", "|" + "---:|" * 5]
    for c in checks:
        times = f"{c['modelled']:.2f} s | {c['measured']:.2f} s | {c['ratio']:.2f}"
        lines.append(f"| {c['clients']:,} | {c['neighbours']} | {times} |")
    return "\n".join(lines) + "\n"


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    """Draw bytes, seconds and memory over the number of clients."""
    n = [r["clients"] for r in rows]
    figure, panels = plt.subplots(1, 3, figsize=(11, 3.4), constrained_layout=True)
    series = (
        ("GB in a round", {"all clients": [r["bytes at the server"] / 1e9 for r in rows],
                           "one client": [(r["bytes up a client"] + r["bytes down a client"]) / 1e9 for r in rows]}),
        ("seconds in a round", {"network": [r["network seconds"] for r in rows],
                                "server, one core": [r["processor seconds of the server"] for r in rows],
                                "one client, one core": [r["processor seconds of a client"] for r in rows]}),
        ("MiB at the server", {"memory": [r["server memory"] / 2**20 for r in rows]}),
    )  # fmt: skip
    for panel, (label, lines) in zip(panels, series, strict=True):
        for name, values in lines.items():
            panel.plot(n, values, marker="o", markersize=3, label=name)
        panel.set(xscale="log", yscale="log", xlabel="clients", ylabel=label)
        panel.grid(alpha=0.3)
        panel.legend(frameon=False, fontsize=8)
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


def main() -> None:
    """Compute, write capacity.json, capacity.md and capacity.svg."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("docs/results"))
    output: Path = parser.parse_args().output
    measured = json.loads((output / "secure-aggregation.json").read_text(encoding="utf-8"))
    unit = unit_costs(measured, DIMENSION)
    rows, checks = [row(n, unit) for n in CLIENTS], against_measured(measured, unit)
    machine = {"python": platform.python_version(), "numpy": np.__version__, "pads and shares": measured["machine"]}
    content = {
        "assumptions": ASSUMPTIONS,
        "dimension": DIMENSION,
        "machine": machine,
        "unit seconds": unit,
        "rows": rows,
        "model against measured rounds": checks,
    }
    (output / "capacity.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    note = "Made by `python benchmarks/capacity.py --output docs/results`; read [../capacity.md](../capacity.md).\n\n"
    (output / "capacity.md").write_text("# Capacity\n\n" + note + table(rows, checks), encoding="utf-8")
    mpl.rcParams["svg.hashsalt"] = "securefed"
    draw(rows, output / "capacity.svg")
    print(table(rows, checks))


if __name__ == "__main__":
    main()
