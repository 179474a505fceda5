"""The report as one self-contained HTML page: plain sentences first, detail after; no script, nothing fetched."""

from collections.abc import Callable, Mapping
from typing import Any

from audit.report.charts import bars, line_chart, stacked_bars, timeline
from audit.report.markup import (
    Html,
    bullets,
    code,
    decimal,
    figure,
    join,
    number,
    pairs,
    paragraph,
    percent,
    table,
    text,
    verdict,
    whole,
)
from audit.report.style import STYLE

_PARTS = {"ensemble": "ensemble", "fam": "FAM alone", "mlp": "private classifier alone"}


def render_html(report: Mapping[str, Any]) -> str:
    """Return the page of a report; the same report gives the same page.

    Args:
        report: As `build_report` returns it; nothing else goes into the page.
    """
    sections: tuple[tuple[str, Callable[[Mapping[str, Any]], Html]], ...] = (
        ("Identity of the run", _identity),
        ("Purpose and data", _purpose),
        ("The formal claim", _claim),
        ("Scope", _scope),
        ("Mechanism", _mechanism),
        ("Who could learn what", _trust),
        ("Budget by hospital", _ledger),
        ("Round by round", _rounds),
        ("Communication", _communication),
        ("Attacks tried", _empirical),
        ("Utility", _utility),
        ("Risks and open items", _risks),
    )
    identity = report["identity"]
    links = "".join(f'<li><a href="#s{place}">{text(title)}</a></li>' for place, (title, _) in enumerate(sections, 1))
    body = "".join(
        f'<section id="s{place}"><h2>{place}. {text(title)}</h2>{render(report)}</section>'
        for place, (title, render) in enumerate(sections, 1)
    )
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>Audit report of {text(identity['run_id'])}</title><style>{STYLE}</style></head><body>"
        f"<header><h1>Audit report</h1>{paragraph(_what(report), 'lead')}</header><main>"
        f"{_first_page(report)}<nav aria-label='Contents'><h2>Contents</h2><ol>{links}</ol></nav>{body}</main>"
        f"<footer>{paragraph('Made from the files of the run alone; the same files give the same report.')}</footer>"
        "</body></html>\n"
    )


def _what(report: Mapping[str, Any]) -> str:
    identity, data = report["identity"], report["data"]
    kind = "simulated run" if identity["operation"] == "simulation" else "run"
    end = f"ended {_minute(identity['ended'])}" if identity["ended"] else "did not reach its end"
    name = data["name"] or "unnamed data"
    hospitals = f"{len(data['hospitals'])} hospitals on {name}"
    return f"{identity['run_id']}: a {kind} of {hospitals}, begun {_minute(identity['started'])}, {end}."


def _minute(time: str) -> str:
    return f"{time[:10]} {time[11:16]} UTC"


def _first_page(report: Mapping[str, Any]) -> Html:
    rows = [(line["subject"], verdict(line["verdict"]), line["sentence"]) for line in report["verdicts"]]
    sentences = bullets([entry["sentence"] for entry in report["hospitals"]])
    return join(
        [
            "<section><h2>What is claimed, and does it hold</h2>",
            table("One line for each claim", ("subject", "verdict", "in words"), rows),
            "<h2>What it means for each hospital</h2>",
            sentences,
            "</section>",
        ]
    )


def _identity(report: Mapping[str, Any]) -> Html:
    identity = report["identity"]
    checks = [(check["name"], verdict(check["outcome"]), check["detail"]) for check in identity["checks"]]
    keys = [("server", code(identity["server_key"]))] if identity["server_key"] else []
    keys += [(name, code(key)) for name, key in identity["hospital_keys"].items()]
    facts = [
        ("run", identity["run_id"]),
        ("begun", identity["started"]),
        ("ended", identity["ended"]),
        ("rounds", whole(identity["rounds"])),
        ("model kept from round", whole(identity["chosen_round"])),
        ("SHA-256 of the model", code(identity["model_digest"])),
        ("SHA-256 of the configuration", code(identity["config_digest"])),
        ("source code", identity["commit"]),
        ("events in the log", whole(identity["events"])),
        ("root of the log", code(identity["root"])),
        ("roster", "agreed on before the run" if identity["is_pinned"] else "that came with the run"),
    ]
    software = list(identity["software"].items())
    return join(
        [
            pairs("The run and its record", facts),
            "<h3>Verification</h3>",
            table("What was checked", ("check", "outcome", "found"), checks),
            "<h3>Keys and versions</h3>",
            pairs("Public keys (Ed25519)", keys),
            pairs("Software", software),
        ]
    )


def _purpose(report: Mapping[str, Any]) -> Html:
    data, purpose = report["data"], report["purpose"]
    declared = [(field["name"].replace("_", " "), field["value"], field["law"]) for field in purpose["fields"]]
    facts = [
        ("data set", data["name"]),
        ("fingerprint of the data", code(data["fingerprint"])),
        ("hospitals", ", ".join(data["hospitals"])),
        ("held out", data["held_out"]),
        ("classes", ", ".join(data["classes"])),
        ("frozen encoder", data["encoder"]),
        ("SHA-256 of the encoder", code(data["encoder_digest"])),
    ]
    counts = [
        (site, ", ".join(f"{split} {count}" for split, count in splits.items()))
        for site, splits in data["declared_counts"].items()
    ]
    return join(
        [
            table("Declared in the configuration; a dash is an open item", ("field", "declared", "duty"), declared),
            pairs("Data and encoder", facts),
            table("Numbers of images that the hospitals declared public", ("hospital", "images"), counts),
            bullets(data["warnings"]),
        ]
    )


def _claim(report: Mapping[str, Any]) -> Html:
    claim = report["claim"]
    parts = [paragraph(claim["statement"])]
    if claim["claim"] != "CLAIMED":
        return join([*parts, paragraph(claim["reason"])])
    facts = [
        ("unit", claim["unit"]),
        ("neighbours by", claim["adjacency"]),
        ("epsilon, upper bound", decimal(claim["epsilon"], 5)),
        ("epsilon, lower bound of the accountant", decimal(claim["lower"], 5)),
        ("delta", decimal(claim["delta"])),
        ("accountant", claim["accountant"]),
        ("target", decimal(claim["target_epsilon"])),
    ]
    facts += [(f"cross-check by {name}", decimal(value, 5)) for name, value in claim["cross_checks"].items()]
    events = [
        (
            event["hospital"] or "all",
            event["mechanism"]["type"],
            ", ".join(f"{name} {value}" for name, value in event["mechanism"].items() if name != "type"),
            whole(event["repetitions"]),
        )
        for event in claim["events"]
    ]
    profile = [(decimal(entry["delta"]), decimal(entry["epsilon"], 5)) for entry in claim["by_delta"]]
    attacker = [(percent(entry["false_positives"]), percent(entry["true_positives"])) for entry in claim["attacker"]]
    parts += [
        bullets([Html(f'<strong class="fail">{text(line)}</strong>') for line in claim["contradictions"]]),
        pairs("The guarantee", facts),
        table("What was released", ("hospital", "mechanism", "parameters", "times"), events, numbers=(3,)),
        table("epsilon for other deltas", ("delta", "epsilon"), profile, numbers=(1,)),
        table(
            "The most that any attack on membership can achieve",
            ("wrong accusations", "found members, at most"),
            attacker,
            numbers=(1,),
        ),
    ]
    points = [(entry["round"], entry["epsilon"]) for entry in report["rounds"] if entry["epsilon"] is not None]
    if points:
        budgets = [entry["budget"] for entry in report["hospitals"] if entry["budget"] is not None]
        limit = ("smallest budget", min(budgets)) if budgets else None
        chart = line_chart(
            "epsilon by round",
            f"epsilon grows to {points[-1][1]:.4g} in round {points[-1][0]}",
            {"epsilon": points},
            x_label="round",
            y_label="epsilon",
            limit=limit,
        )
        parts.append(figure(chart, "Largest epsilon over the hospitals after each round."))
    return join(parts)


def _scope(report: Mapping[str, Any]) -> Html:
    kinds = [
        (name, whole(both["up"]), whole(both["down"])) for name, both in report["communication"]["by_kind"].items()
    ]
    checklist = [(row["name"], verdict(row["outcome"]), row["detail"]) for row in report["pitfalls"]]
    unprotected = report["claim"]["unprotected"]
    return join(
        [
            table(
                "Everything that passed between hospitals and server, by kind",
                ("kind", "up", "down"),
                kinds,
                numbers=(1, 2),
            ),
            "<h3>Quantities that nothing protects</h3>",
            bullets(unprotected) if unprotected else paragraph("The run lists none beyond what the claim leaves open."),
            "<h3>Checklist</h3>",
            table("Pitfalls of training with differential privacy", ("pitfall", "outcome", "shown by"), checklist),
        ]
    )


def _mechanism(report: Mapping[str, Any]) -> Html:
    rows = [(name.replace("_", " "), _plain(value)) for name, value in report["protocol"].items()]
    return pairs("How updates were summed", rows) or paragraph("Nothing was summed in this run.")


def _plain(value: object) -> object:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return number(value, f"{value:,}") if isinstance(value, int | float) else str(value)


def _trust(report: Mapping[str, Any]) -> Html:
    rows = [(row["adversary"], row["sees"], row["protection"], decimal(row["epsilon"])) for row in report["trust"]]
    return table(
        "Guarantee by adversary; a dash is no guarantee by noise",
        ("who", "sees", "what protects", "epsilon"),
        rows,
        numbers=(3,),
    )


def _ledger(report: Mapping[str, Any]) -> Html:
    rows = [
        (
            entry["name"],
            decimal(entry["epsilon"]),
            decimal(entry["budget"]),
            whole(entry["charges"]),
            whole(entry["refused"]),
            whole(entry["renewals"]),
        )
        for entry in report["hospitals"]
    ]
    header = ("hospital", "epsilon of this run", "budget", "charges", "refused", "renewals")
    parts = [table("Accounts", header, rows, numbers=(1, 2, 3, 4, 5))]
    spent = {
        entry["name"]: (entry["epsilon"], entry["budget"])
        for entry in report["hospitals"]
        if entry["epsilon"] is not None
    }
    if spent:
        drawing = bars(
            "Spent by hospital", "one bar a hospital, a mark at its budget", spent, unit="epsilon of this run"
        )
        parts.append(figure(drawing, "The mark is the budget over all runs, where there is one."))
    return join(parts)


def _rounds(report: Mapping[str, Any]) -> Html:
    rows = [
        (
            whole(entry["round"]),
            Html(f"{whole(entry['survivors'])} of {whole(entry['cohort'])}"),
            ", ".join(f"{name} ({stage})" for name, stage in entry["dropouts"].items()),
            decimal(entry["epsilon"]),
            whole(entry["bytes"]["up"]),
            whole(entry["bytes"]["down"]),
            code(entry["aggregate_digest"][:16] + "..."),
            "done again later" if entry["superseded"] else "",
        )
        for entry in report["rounds"]
    ]
    header = (
        "round",
        "in the sum",
        "lost (stage)",
        "epsilon so far",
        "bytes up",
        "bytes down",
        "digest of the sum",
        "note",
    )
    parts = [table("All rounds", header, rows, numbers=(3, 4, 5))]
    lost = sum(len(entry["dropouts"]) for entry in report["rounds"])
    if lost:
        stages = {
            name: [entry["dropouts"].get(name) for entry in report["rounds"]] for name in report["data"]["hospitals"]
        }
        drawing = timeline("Losses", f"{lost} losses over {len(rows)} rounds", stages)
        parts.append(figure(drawing, "A dark square is a loss, with the first letter of the stage."))
    return join(parts) if rows else paragraph("The hospitals did not train together in this run.")


def _communication(report: Mapping[str, Any]) -> Html:
    section = report["communication"]

    def both(rows: Mapping[str, Mapping[str, int]]) -> list[tuple[object, ...]]:
        return [(key, whole(value["up"]), whole(value["down"])) for key, value in rows.items()]

    comparison = [
        (entry["name"], number(entry["bytes"], f"{entry['bytes']:,.0f}"), decimal(entry["ratio"]))
        for entry in section["comparison"]
    ]
    mean = section["per_client_round"]
    facts = [
        ("sent by all hospitals", whole(section["total"]["up"])),
        ("received by all hospitals", whole(section["total"]["down"])),
        ("sent, rounds done again included", whole(section["all_sent"]["up"])),
        ("a hospital sends in a round", number(mean["up"], f"{mean['up']:,.0f}")),
        ("a hospital receives in a round", number(mean["down"], f"{mean['down']:,.0f}")),
    ]
    parts = [
        paragraph("Counted on the encoded frames of every message; none is an estimate."),
        pairs("Bytes", facts),
        table("By hospital", ("hospital", "up", "down"), both(section["by_client"]), numbers=(1, 2)),
        table("By stage", ("stage", "up", "down"), both(section["by_stage"]), numbers=(1, 2)),
        table(
            "Against other ways to train",
            ("what a hospital sends", "bytes", "times as much"),
            comparison,
            numbers=(1, 2),
        ),
    ]
    if section["by_round"]:
        columns = [(str(entry["round"]), entry["kinds"]) for entry in section["by_round"]]
        drawing = stacked_bars(
            "Bytes sent by round", "one bar a round, stacked by kind", columns, x_label="round", y_label="bytes up"
        )
        parts.append(figure(drawing, "Bytes that all hospitals sent, by round and kind."))
    return join(parts)


def _empirical(report: Mapping[str, Any]) -> Html:
    rows = [
        (
            entry["name"],
            entry["setting"],
            verdict(entry["outcome"]),
            ", ".join(f"{name} {value}" for name, value in entry["values"].items()),
            entry["reason"],
        )
        for entry in report["empirical"]
    ]
    if not rows:
        return paragraph("No attack was tried on this run. What was not tried may still work.")
    return table("Attacks", ("attack", "setting", "outcome", "measured", "note"), rows)


def _utility(report: Mapping[str, Any]) -> Html:
    utility = report["utility"]
    header = ("hospital", "part", "accuracy", "balanced", "macro F1", "AUROC", "calibration error")
    blocks = [*utility["sites"].items(), ("mean over hospitals", utility["mean"])]
    names = ("accuracy", "balanced_accuracy", "macro_f1", "auroc", "ece")
    rows = [
        (site, _PARTS.get(part, part), *(percent(metrics[name]) for name in names))
        for site, parts in blocks
        for part, metrics in parts.items()
    ]
    if not rows:
        return paragraph("No test metric is in the record.")
    worst = [
        (name.replace("_", " "), entry["site"], percent(entry["value"])) for name, entry in utility["worst"].items()
    ]
    return join(
        [
            paragraph(f"On test data, of {utility['source']}."),
            table("Test metrics", header, rows, numbers=(2, 3, 4, 5, 6)),
            table("Where the ensemble is worst", ("metric", "hospital", "value"), worst, numbers=(2,)),
        ]
    )


def _risks(report: Mapping[str, Any]) -> Html:
    questions = [(row["question"], row["answer"], row["state"]) for row in report["questions"]]
    sign = "".join(f"<div>{text(role)}<br>name, date, signature</div>" for role in report["sign_off"])
    return join(
        [
            table("Questions of an evaluator", ("question", "answer", "state"), questions),
            "<h3>Limits of this report</h3>",
            bullets(report["limitations"]),
            "<h3>Open items</h3>",
            bullets(report["purpose"]["open_items"]) or paragraph("None."),
            f'<h3>Sign-off</h3><div class="sign">{sign}</div>',
        ]
    )
