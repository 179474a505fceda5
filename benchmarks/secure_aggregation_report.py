"""Turns the figures of secure_aggregation.py into a Markdown table, a JSON file and a plot."""

import datetime as dt
import importlib.metadata
import json
import os
import platform
import shlex
import sys
from pathlib import Path


def cpu_model():
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or "unknown"


def machine():
    versions = {}
    for package in ("numpy", "cryptography", "flwr"):
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = "absent"
    command = " ".join(["python", *(shlex.quote(part) for part in sys.argv)])
    return {
        "cpu": cpu_model(),
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 1),
        "python": platform.python_version(),
        **versions,
        "date": dt.datetime.now(tz=dt.UTC).date().isoformat(),
        "command": command,
    }


TARGETS = {"apply": True}
"""Targets hold for vectors of the full length."""


def seconds(value):
    if value is None:
        return "-"
    if value < 1e-3:
        return f"{value * 1e6:.0f} us"
    return f"{value * 1e3:.3g} ms" if value < 1 else f"{value:.3g} s"


def table(head, rows):
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join(lines + ["| " + " | ".join(str(cell) for cell in row) + " |" for row in rows]) + "\n"


def times(value):
    return "-" if value is None else f"{value:.3g}x"


def verdict(value, limit, unit=""):
    if not TARGETS["apply"]:
        return "-"
    return f"{'met' if value <= limit else 'MISSED'} (at most {limit:g}{unit})"


def masking(figures):
    rows = []
    for neighbours, f in figures.items():
        flower = f.get("flower")
        rows.append(
            (
                neighbours,
                seconds(f["floor"]),
                seconds(f["pads"]),
                f"{f['median ratio']:.2f}x",
                verdict(round(f["median ratio"], 3), 1.15),
                seconds(f["pads and agreement"]),
                seconds(flower),
                times(flower and flower / f["pads and agreement"]),
            )
        )
    head = ("neighbours", "AES-256-CTR + add", "pads", "of the floor", "target", "with agreement", "Flower", "faster")
    return table(head, rows)


def shamir(figures):
    rows = []
    limits = {100: 1e-3, 1000: 40e-3}
    for clients, f in figures.items():
        limit = limits.get(int(clients))
        flower = f.get("flower split")
        combined = f.get("flower combine key")
        rows.append(
            (
                clients,
                f["threshold"],
                seconds(f["split"]),
                verdict(round(f["split"] * 1e3, 3), limit * 1e3, " ms") if limit else "-",
                seconds(flower),
                times(flower and flower / f["split"]),
                seconds(f["combine"]),
                seconds(combined),
                times(combined and combined / f["combine"]),
            )
        )
    head = ("n", "t", "split both", "target", "Flower", "faster", "combine one", "Flower, key", "faster")
    return table(head, rows)


def rounds(figures):
    limits = {"100": (7.5, 0.4), "1000": (75, None)}
    rows = []
    for name, f in figures.items():
        whole, unmask = limits.get(name, (None, None))
        rows.append(
            (
                name,
                f["neighbours"],
                f["threshold"],
                f["lost"],
                seconds(f["cpu"]),
                verdict(round(f["cpu"], 2), whole, " s") if whole else "-",
                seconds(f["wall"]),
                seconds(f["unmask"]),
                verdict(round(f["unmask"], 3), unmask, " s") if unmask else "-",
                f"{f['peak MiB']:.0f} MiB",
            )
        )
    head = ("n", "k", "t", "lost", "round, cpu", "target", "round, wall", "unmask", "target", "peak memory")
    return table(head, rows)


def sizes(figures, length):
    rows = [
        (
            name,
            f["ring bits"],
            f"{f['bytes up'] / 1e6:.3f} MB",
            f"{f['bytes up by kind']['payload'] / 1e6:.3f} MB",
            f"{(f['bytes up'] - f['bytes up by kind']['payload']) / 1e3:.1f} kB",
            f"{f['of float32']:.3f}x",
            verdict(round(f["of float32"], 3), 0.64) if name == "10" else "-",
            f"{8 * length / f['bytes up']:.2f}x",
        )
        for name, f in figures.items()
    ]
    head = ("n", "ring bits", "upload", "vector", "the rest", "of float32", "target", "less than Flower's int64")
    return table(head, rows)


def comparison(figures):
    parts = []
    for clients, f in figures.items():
        ours, flower = f["ours"], f["flower"]
        rows = [
            ("whole round, cpu", seconds(flower["cpu"]), seconds(ours["cpu"]), times(f["ratio"])),
            ("whole round, wall", seconds(flower["wall"]), seconds(ours["wall"]), times(flower["wall"] / ours["wall"])),
            (
                "server's unmasking, cpu",
                seconds(flower["unmask"]),
                seconds(ours["unmask"]),
                times(flower["unmask"] / ours["unmask"]),
            ),
            (
                "upload of a vector",
                f"{flower['bytes up'] / 1e6:.2f} MB",
                f"{ours['bytes up'] / 1e6:.2f} MB (all frames)",
                times(flower["bytes up"] / ours["bytes up"]),
            ),
        ]
        what = f"n = {clients}, {ours['neighbours']} neighbours, threshold {ours['threshold']}, {ours['lost']} lost"
        goals = ""
        if TARGETS["apply"]:
            goals = f"Targets: whole round at least 15 times faster ({'met' if f['ratio'] >= 15 else 'MISSED'}); "
            goals += f"unmasking {verdict(round(ours['unmask'], 3), 0.25, ' s')}.\n"
        parts.append(f"{what}:\n\n" + table(("", "Flower SecAgg+", "SecureFed", "ratio"), rows) + "\n" + goals)
    return "\n".join(parts) or "Not measured.\n"


def plot(figures, path):
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    fig, (left, right) = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
    names = list(figures["masking"])
    place = range(len(names))
    series = [("AES-256-CTR + add", "floor", "#999999"), ("SecureFed", "pads and agreement", "#1f6f8b")]
    if all("flower" in f for f in figures["masking"].values()):
        series.append(("Flower SecAgg+", "flower", "#d1603d"))
    for i, (label, key, colour) in enumerate(series):
        bars = [figures["masking"][name][key] * 1e3 for name in names]
        left.bar([p + 0.27 * (i - 1) for p in place], bars, 0.25, label=label, color=colour)
    left.set(xticks=list(place), xticklabels=names, xlabel="neighbours", ylabel="ms of one client's pads, keys agreed")
    left.legend(frameon=False)
    rounds = [f for name, f in figures["round"].items() if name == str(f["clients"])]
    right.loglog([f["clients"] for f in rounds], [f["cpu"] for f in rounds], "o-", color="#1f6f8b", label="SecureFed")
    for n, f in figures["compare"].items():
        right.loglog([int(n)], [f["flower"]["cpu"]], "s", color="#d1603d", label="Flower SecAgg+ (k = 50)")
        right.loglog([int(n)], [f["ours"]["cpu"]], "D", color="#1f6f8b", label="SecureFed (k = 50)")
    right.set(xlabel="clients", ylabel="processor seconds of a whole round")
    right.legend(frameon=False)
    for axis in (left, right):
        axis.spines[["top", "right"]].set_visible(False)
    fig.savefig(path, dpi=150)


def report(figures, length, value_bits, folder, *, targets):
    TARGETS["apply"] = targets
    here = machine()
    facts = ", ".join(f"{name} {value}" for name, value in here.items() if name not in ("cpu", "cores", "command"))
    text = f"""# Secure aggregation: time, memory and bytes

d = {length} coordinates of {value_bits} bits.

Machine: {here["cores"]} cores, {here["cpu"]}; {facts}.

Command: `{here["command"]}`.

Times are processor seconds of one thread unless they say wall: the machine is shared with other work, so the ratios
are what to quote. Everything of a round runs in one process, one client after the other: keys, signatures, shares,
encoding, masking, packing, serialisation, ConsistencyCheck, unmasking. One thing is shared between the clients of a
process: each distinct signature is verified once; a real client verifies those of its neighbours and a quorum itself,
about 0.1 ms each. Every sum is compared with the plain one. Flower's figures are those of its own server workflow and
client mod, joined in memory without a network; it makes no signatures.

On a processor with VAES a pad is made by the instructions of GCM (ADR 24), which takes less than the
keystream by CTR that it is compared with; elsewhere by CTR. `as simulated`: the ring that a simulation takes against
an active server, one in five corrupt and one in ten lost.

## One client's masking

{masking(figures["masking"])}
## Shamir's secret sharing

{shamir(figures["shamir"])}
## Whole rounds

{rounds(figures["round"])}
## Bytes of one client

{sizes(figures["round"], length)}
## Side by side with Flower

{comparison(figures["compare"])}"""
    print(text)
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        plot(figures, folder / "secure-aggregation.png")
        text += "\n![Masking and whole rounds](secure-aggregation.png)\n"
        (folder / "secure-aggregation.md").write_text(text)
        (folder / "secure-aggregation.json").write_text(json.dumps({"machine": here, **figures}, indent=1) + "\n")
