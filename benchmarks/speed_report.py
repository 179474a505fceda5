# ruff: noqa: E501 (prose)
"""docs/results/speed.json, to which each speed benchmark adds its part, and the page that is made of it."""

import json
from pathlib import Path

HEAD = """# Speed

Each part was measured in a process of its own by the command under it, on the machine and at the load named there: the
machine was shared with other work all the time, so ratios between figures of one line are what to quote, and
wall-clock figures are upper bounds. `processor` is processor time of all threads.

On a GPU all hospitals of a round train in one batched computation (`clients/method/lean/fleet.py`); the tests hold it
to the trainer of one hospital, on the processor and on a GPU where there is one (`pytest -m gpu`).
"""


def add(folder, parts, command):
    """Put parts into speed.json and write speed.md anew."""
    path = Path(folder) / "speed.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    known = json.loads(path.read_text()) if path.exists() else {}
    for part, results in parts.items():
        former = known.get(part, {})
        known[part] = {"command": command.strip(), "results": results}
        if part in ELSEWHERE:
            others = [former["results"]] if former else []
            others += former.get("elsewhere", [])
            known[part]["elsewhere"] = [other for other in others if not same(other, results)]
    path.write_text(json.dumps(known, indent=1) + "\n")
    write(folder)


def write(folder):
    """Write speed.md from speed.json."""
    known = json.loads((Path(folder) / "speed.json").read_text())
    sections = [HEAD]
    for part, section in SECTIONS.items():
        if part not in known:
            sections.append(f"{MISSING[part]}\n")
        else:
            results = known[part]["results"]
            made = known[part]["command"]
            others = "".join(
                f"\nOn {conditions(other[-1]['machine'])}: {ELSEWHERE[part](other)}.\n"
                for other in known[part].get("elsewhere", [])
            )
            sections.append(
                section(results) + f"\nMade by `{made}` with {conditions(results[-1]['machine'])}.\n{others}"
            )
    (Path(folder) / "speed.md").write_text("\n".join(sections))


def same(left, right):
    """Whether the results of a part are of the same kind of machine."""
    return left[0]["machine"]["processor"] == right[0]["machine"]["processor"]


def conditions(m):
    packages = ", ".join(f"{k} {v}" for k, v in m.items() if k not in ("processor", "cores", "load", "date"))
    return f"{packages}; {m['cores']} cores of {m['processor']}, load {m['load']:.0f}, {m['date']}"


def verdict(met, aim):
    return f"{'met' if met else 'NOT met'} ({aim})"


def step(results):
    lines = [
        "## One training step",
        "",
        "FAM and private MLP, batch of 32 x 512 features, 8 classes, one thread, processor ms, medians of turns. The floor",
        "is the matrix products of the step on matrices that lie in memory as the model's do, and its fused AdamW.",
        "",
        "| profile | autograd | lean step | floor | products | AdamW | lean / floor | aim |",
        "|---|---|---|---|---|---|---|---|",
    ]
    steps = results[0]["steps"]
    for name, r in steps.items():
        numbers = (r[key] for key in ("autograd", "step", "floor", "products", "optimizer"))
        cells = " | ".join(f"{value:.2f}" for value in numbers)
        lines.append(f"| {name} | {cells} | {r['of_floor']:.2f} | {verdict(r['of_floor'] <= 2, 'at most 2')} |")
    lines += ["", "Where the time of a lean step goes (ms a step under torch's profiler, which adds its own):", ""]
    for name, r in steps.items():
        parts = ", ".join(f"{op.removeprefix('aten::')} {ms:.2f}" for op, ms in r["profile"].items())
        lines.append(f"- {name}: {parts}")
    return "\n".join(lines) + "\n"


def run(results):
    r = results[0]
    timing = ", ".join(f"{name.removesuffix('_s')} {value:.1f} s" for name, value in r["timing"].items())
    profile = ", ".join(f"`{name}` {seconds:.2f}" for name, seconds in r["profile"].items())
    phases = dict(r["phases"])
    whole = phases.pop("whole")
    phases["protocol: keys, shares, pads, encoding, frames"] = whole - sum(phases.values())
    shares = ", ".join(f"{name} {seconds:.1f}" for name, seconds in sorted(phases.items(), key=lambda item: -item[1]))
    gpu = r["machine"].get("GPU")
    own = " in the run's own process (those that train: see below)" if "load_after" in r and not gpu else ""
    least, where = (10, "on one H200-class GPU") if gpu else (150, "on two cores")
    return f"""## A set of the size of ISIC 2019{", on a GPU" if gpu else ""}

{r["images"]:,} synthetic features of width 512, {r["train"]:,} for training, {r["clients"]} clients, 8 classes, batch 32,
{r["rounds"]} rounds, secure aggregation with an active server, from reading the features to the report:
**{r["wall_s"]:.0f} s** wall, {r["processor_s"]:.0f} processor seconds, peak memory {r["peak_mib"]:.0f} MiB{own}.
Aim: {verdict(r["wall_s"] <= least, f"at most {least} s {where}")}. Phases (wall): {timing}.

Where the time of a whole run goes ({r["profiled_rounds"]} rounds, one worker, processor seconds of {whole:.1f} under
cProfile, which adds its own): {shares}.
By function, without what it calls: {profile}.
"""


def step_elsewhere(results):
    """One line about the step on another machine."""
    return "; ".join(
        f"{name} lean step {s['step']:.2f} ms, floor {s['floor']:.2f} ms ({s['products']:.2f} ms of products), "
        f"lean / floor {s['of_floor']:.2f}"
        for name, s in results[0]["steps"].items()
    )


def run_elsewhere(results):
    """One line about the run on another machine."""
    r = results[0]
    aim = verdict(r["wall_s"] <= 150, "at most 150 s on two cores")
    return f"{r['wall_s']:.0f} s wall, {r['processor_s']:.0f} processor seconds, {aim}"


def clients(results):
    lines = [
        "## More clients",
        "",
        "64 training and 16 validation images a client, cost a client and round from the second round on. Under masks a",
        "client shares a pad with each of its neighbours in the graph.",
        "",
        "| clients | kept round | rounds | in clear, processor ms | wall ms | neighbours | under masks, processor ms | ms a neighbour | peak memory in clear MiB | grown a client MiB |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for r in results:
        plain, secure = r["plain"], r.get("secure")
        masked, k = "", r.get("neighbours", "")
        if secure and k:
            masked = f"{secure['processor_ms']:.1f} | {(secure['processor_ms'] - plain['processor_ms']) / k:.2f}"
        lines.append(
            f"| {r['clients']} | {r.get('select', 'best-val')} | {plain['rounds']} | {plain['processor_ms']:.1f} | {plain['wall_ms']:.1f} "
            f"| {k} | {masked or ' | '} | {plain.get('peak_mib', r.get('peak_mib')):.0f} | {plain['grown_mib']:.2f} |"
        )
    costs = {
        r["clients"]: r["plain"]["processor_ms"]
        for r in results
        if r["clients"] >= 10 and r.get("select", "best-val") == "best-val"
    }
    spread = max(costs.values()) / min(costs.values()) - 1
    largest = max(results, key=lambda r: r["clients"])
    grown = largest["plain"]["grown_mib"]
    flat = verdict(spread <= 0.2, "at most 20 %")
    lean = verdict(grown <= 5, "at most 5 MiB")
    lines += [
        "",
        f"From 10 clients on the cost in clear varies by {100 * spread:.0f} %: {flat}.",
        f"At {largest['clients']} clients memory has grown by {grown:.2f} MiB a client beyond its features: {lean}. The MLP of a",
        "hospital has 2.0 MiB. While a round runs there is the one that it has, and the one that it had when the round began",
        "until it has trained; beyond 64 MiB the states that `select = best-val` may want back wait in a file.",
        "",
        *with_processes(results),
        *under_masks(results),
        "Under masks the cost is flat in the number of clients only where the number of neighbours is: a pad is a keystream as",
        "long as the vector, made by both of its ends (a simulation makes each of them twice, as the hospitals would), and",
        "runs at the speed of AES-256 (secure-aggregation.md). Up to 100 clients the graph is complete, by design: then no",
        "set of colluders below the threshold exposes anybody, with certainty, and a round opens as long as a threshold of",
        "clients is left. A ring with a failure probability of 2^-40 against an active server (one in five corrupt, one in ten",
        "lost) would do with 44 neighbours of 99 at 100 clients and needs 64 at 150, 98 at 300, 124 at 500 and 152 at 1000:",
        "above 100 clients simulations use it (`protocols/plan.py`), below they keep the certainty and pay for it.",
    ]
    return "\n".join(lines) + "\n"


def clients_with_many_images(results):
    lines = [
        "## More clients, with many images each",
        "",
        f"{results[0]['images']:,} training images a client (a client of the set of the size of ISIC 2019 has 2,533), under masks with an active",
        "server, cost a client and round from the second round on.",
        "",
        "| clients | neighbours | rounds | processor ms | wall ms | peak memory MiB |",
        "|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {r['clients']} | {r['neighbours']} | {r['rounds']} | {r['processor_ms']:.0f} | {r['wall_ms']:.0f} | {r['peak_mib']:.0f} |"
        for r in results
    ]
    costs, said = flatness(results)
    lines += ["", f"From {min(costs)} to {max(costs)} clients it varies by {said}."]
    return "\n".join(lines) + "\n"


def flatness(results):
    """{clients: processor ms} from 10 clients on, and by how much that varies, in words."""
    costs = {r["clients"]: r["processor_ms"] for r in results if r["clients"] >= 10}
    spread = max(costs.values()) / min(costs.values()) - 1
    return costs, f"{100 * spread:.0f} %: {verdict(spread <= 0.2, 'at most 20 %')}"


def many_images_elsewhere(results):
    """One line about clients with many images on another machine."""
    costs, said = flatness(results)
    each = ", ".join(f"{ms:.0f} ms at {clients} clients" for clients, ms in costs.items())
    return f"{each}; it varies by {said}"


def with_processes(results):
    """What the processes of long runs add to memory."""
    largest = max(results, key=lambda r: r["clients"])
    if "crew" not in largest:
        return []
    crew, count = largest["crew"], largest["clients"]
    total = largest["plain"]["grown_mib"] + crew["grown_mib"]
    return [
        "",
        f"Long runs train in processes (ADR 17). Together they have {crew['processes_mib']:.0f} MiB as they start, whatever the number of clients, and",
        f"grow by {crew['grown_mib']:.2f} MiB a client at {count} clients, a copy of the features among it: with the above",
        f"{total:.2f} MiB a client, {verdict(total <= 5, 'at most 5 MiB')}.",
        "",
    ]


def under_masks(results):
    """How far the cost under masks is from flat, and from how many images on it would be."""
    extra = {
        r["clients"]: r["secure"]["processor_ms"] - r["plain"]["processor_ms"]
        for r in results
        if r["clients"] >= 10 and "secure" in r
    }
    costs = {r["clients"]: r["secure"]["processor_ms"] for r in results if r["clients"] in extra}
    if len(costs) < 2:
        return []
    spread = max(costs.values()) / min(costs.values()) - 1
    least, most = min(costs), max(costs)
    lines = [
        f"From {least} to {most} clients the cost under masks varies by {100 * spread:.0f} %: {verdict(spread <= 0.2, 'at most 20 %')}. Masks add "
        + ", ".join(f"{ms:.1f} ms at {n} clients" for n, ms in extra.items())
        + ", whatever",
        "the number of images; training grows with it.",
    ]
    slope = next((r["image_ms"] for r in results if "image_ms" in r), None)
    if slope is not None:
        base = {n: costs[n] - 64 * slope for n in costs}
        needed = max(0.0, (max(base.values()) - 1.2 * min(base.values())) / (0.2 * slope))
        lines += [
            f"Another training image costs {slope:.3f} ms a client and round (measured at 10 clients). By that, computed and not measured,",
            f"the cost under masks is within 20 % from {least} to {most} clients where a client has {needed:.0f} images or more; a client of the",
            "set of the size of ISIC 2019 has 2,533, and the next section says what was measured with them.",
        ]
    return [*lines, ""]


def encode(results):
    r = results[0]
    gpu = r["machine"].get("GPU")
    return f"""## Encoding{", on a GPU" if gpu else ""}: {r["encoder"]}

{r["encoder"]} on {r["data"]}: {r["forward"]:.1f} images/s forward pass alone on decoded images, {r["whole"]:.1f} images/s with
reading, decoding and resizing in {f"{r['workers']} processes" if r.get("workers") else "threads"} beside it: {100 * r["share"]:.0f} % of the forward pass (median of ratios measured
in turns), {verdict(r["share"] >= 0.8, "at least 80 %")}.
"""


def flower(results):
    r = results[0]
    theirs, plain, secure = r["flower"]["round_s"], r["ours"]["plain_s"], r["ours"]["secure_s"]
    ours = r["our_run"]
    return f"""## Flower's simulation

Ten clients that return ten numbers, wall ms a round: Flower {1000 * theirs:.0f} (in clear); here {1000 * plain:.2f} in clear,
{theirs / plain:.0f} times less, {verdict(theirs / plain >= 100, "at least 100 times")}; under masks with an active server
{1000 * secure:.0f} ({theirs / secure:.1f} times less), which is keys, signatures, shares and pads that Flower's round does not have.

Whole run, {r["cohort"][0]} hospitals with {r["cohort"][1]} images each, {r["rounds"]} rounds, the same training: Flower
{r["flower_run"]["total_s"]:.0f} s ({r["flower_run"]["round_s"]:.1f} s a round, in clear, nothing validated), here {ours["total_s"]:.0f} s
({ours["round_s"]:.1f} s a round, under masks, every model scored): {r["flower_run"]["total_s"] / ours["total_s"]:.1f} times faster.
"""


def reference(results):
    r = results[-1]
    lines = [
        "## The reference implementation",
        "",
        f"{r['sites']} sites, features of width 512, one thread, processor seconds a round, each round of ours beside one of the",
        "reference's (medians; `faster` is the median of the rounds' ratios). The reference's own training and exchange without",
        "its validation; ours with validation and secure aggregation, whose cost does not depend on the images: few images a site",
        "make it the larger part of a round.",
        "",
        "| training images a site | profile | reference, features cached | here | faster | aim |",
        "|---|---|---|---|---|---|",
    ]
    for size in results:
        for name, ratio in size["ratio"].items():
            cells = f"{size['reference_s'][name]:.2f} | {size['ours_s'][name]:.2f} | {ratio:.2f}"
            lines.append(f"| {size['images']} | {name} | {cells} | {verdict(ratio >= 3, 'at least 3')} |")
    if "encode_ms" in r:
        again = r["reference_s"]["paper"] + r["sites"] * r["images"] * r["encode_ms"] / 1000
        lines += [
            "",
            f"As published it decodes and encodes every image in every round, here {r['images']} a site: {r['encode_ms']:.1f} ms an image here "
            f"({r['encoder']}, {r['data']}), {again:.1f} s a round: "
            + ", ".join(
                f"{again / seconds:.0f} times ours ({name}, {verdict(again / seconds >= 30, 'at least 30')})"
                for name, seconds in r["ours_s"].items()
            )
            + ".",
        ]
    lines += ["", "Accuracy: ours in [accuracy.md](accuracy.md), the reference's in [reference.md](reference.md)."]
    return "\n".join(lines) + "\n"


MISSING = {
    part: f"## {title}\n\nNot measured yet: `python benchmarks/{command}`."
    for part, title, command in (
        ("step", "One training step", "speed.py --only step"),
        ("run", "A set of the size of ISIC 2019", "speed.py --only run"),
        ("run on a GPU", "A set of the size of ISIC 2019, on a GPU", "speed.py --only run --device cuda"),
        ("clients", "More clients", "speed.py --only clients"),
        (
            "clients with many images",
            "More clients, with many images each",
            "speed.py --only clients --training-images 2533",
        ),
        ("encode", "Encoding", "speed.py --only encode --data PATH --encoder NAME"),
        (
            "encode on a GPU",
            "Encoding, on a GPU",
            "speed.py --only encode --device cuda --images 8192 --data PATH --encoder NAME",
        ),
        (
            "encode on a GPU, random weights",
            "Encoding, on a GPU: a large model",
            "speed.py --only encode --device cuda --images 8192 --data PATH --random-weights ViT-L-14",
        ),
        ("reference", "The reference implementation", "speed_reference.py --checkout PATH"),
        ("flower", "Flower's simulation", "speed_flower.py"),
    )
}

ELSEWHERE = {"step": step_elsewhere, "run": run_elsewhere, "clients with many images": many_images_elsewhere}
"""Parts of which the last result of each other kind of processor is kept, in one line."""

SECTIONS = {
    "step": step,
    "run": run,
    "run on a GPU": run,
    "clients": clients,
    "clients with many images": clients_with_many_images,
    "encode": encode,
    "encode on a GPU": encode,
    "encode on a GPU, random weights": encode,
    "reference": reference,
    "flower": flower,
}
