"""The report as Markdown: for a repository or a mail, with the same numbers as the page."""

from collections.abc import Mapping, Sequence
from typing import Any


def render_markdown(report: Mapping[str, Any]) -> str:
    """Return the report in Markdown; the same report gives the same text."""
    identity, claim, communication = report["identity"], report["claim"], report["communication"]
    mean, total = communication["per_client_round"], communication["total"]
    end = f"ended {identity['ended']}" if identity["ended"] else "did not reach its end"
    parts = [
        f"# Audit report of {_cell(identity['run_id'])}",
        f"Begun {identity['started']}, {end}. Root of the log: `{identity['root']}` over {identity['events']} events.",
        "## What is claimed, and does it hold",
        _table(
            ("subject", "verdict", "in words"),
            [(v["subject"], v["verdict"], v["sentence"]) for v in report["verdicts"]],
        ),
        "## What it means for each hospital",
        "\n".join(f"- {entry['sentence']}" for entry in report["hospitals"]) or "None took part.",
        "## Verification",
        _table(("check", "outcome", "found"), [(c["name"], c["outcome"], c["detail"]) for c in identity["checks"]]),
        "## The formal claim",
        claim["statement"],
    ]
    if claim["claim"] == "CLAIMED":
        facts = [(name, claim[name]) for name in ("unit", "adjacency", "epsilon", "lower", "delta", "accountant")]
        facts += [(f"cross-check by {name}", value) for name, value in claim["cross_checks"].items()]
        parts.append(_table(("what", "value"), facts))
    trust = [(row["adversary"], row["sees"], row["protection"], row["epsilon"]) for row in report["trust"]]
    rounds = [
        (
            r["round"],
            f"{r['survivors']} of {r['cohort']}",
            _losses(r["dropouts"]),
            r["epsilon"],
            r["bytes"]["up"],
            r["bytes"]["down"],
        )
        for r in report["rounds"]
    ]
    utility = [
        (
            site,
            part,
            *(_percent(metrics[name]) for name in ("accuracy", "balanced_accuracy", "macro_f1", "auroc", "ece")),
        )
        for site, entry in (*report["utility"]["sites"].items(), ("mean", report["utility"]["mean"]))
        for part, metrics in entry.items()
    ]
    attacks = [(a["name"], a["setting"], a["outcome"], a["reason"]) for a in report["empirical"]]
    parts += [
        "## Who could learn what",
        _table(("who", "sees", "what protects", "epsilon"), trust),
        "## Round by round",
        _table(("round", "in the sum", "lost (stage)", "epsilon", "bytes up", "bytes down"), rounds),
        "## Communication",
        f"All hospitals sent {total['up']} bytes and received {total['down']}, counted on encoded frames.",
        f"A hospital sent {mean['up']:.0f} bytes and received {mean['down']:.0f} a round.",
        _table(
            ("what a hospital sends", "bytes", "times as much"),
            [(c["name"], c["bytes"], c["ratio"]) for c in communication["comparison"]],
        ),
        "## Attacks tried",
        _table(("attack", "setting", "outcome", "note"), attacks) if attacks else "None.",
        "## Utility",
        _table(("hospital", "part", "accuracy", "balanced", "macro F1", "AUROC", "calibration error"), utility),
        "## Questions of an evaluator",
        _table(
            ("question", "answer", "state"), [(q["question"], q["answer"], q["state"]) for q in report["questions"]]
        ),
        "## Limits and open items",
        "\n".join(f"- {line}" for line in [*report["limitations"], *report["purpose"]["open_items"]]),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    if not rows:
        return ""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(_cell(cell) for cell in line) + " |" for line in lines)


def _cell(value: object) -> str:
    if value is None or value == "":
        return "-"
    if isinstance(value, float):
        return f"{value:.6g}"
    plain = (
        str(value)
        .replace("\\", "\\\\")
        .replace("|", "\\|")
        .replace("<", "&lt;")
        .replace("*", "\\*")
        .replace("`", "\\`")
    )
    return " ".join(plain.split())


def _losses(dropouts: Mapping[str, str]) -> str:
    return ", ".join(f"{name} ({stage})" for name, stage in dropouts.items())


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}"
