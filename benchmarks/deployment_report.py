"""deployment.md from deployment.json."""

from collections.abc import Mapping
from typing import Any

NAMES = {"flare": "NVIDIA FLARE", "flower": "Flower"}


def page(results: Mapping[str, Any]) -> str:
    """Return the page."""
    lines = [
        "# Deployments on loopback",
        "",
        "Made by `python benchmarks/deployment.py` (its head says how); figures in [deployment.json](deployment.json).",
        "One server and four sites of real images, each a process with nothing but its own images, TLS between them.",
        "Seconds are those of one machine that runs all of them, and other work beside where its load says so; bytes",
        "do not depend on it.",
    ]
    parts = {"whole": _whole, "server": _server, "kills": _kills, "private": _private, "refusals": _refusals}
    for engine in sorted(results):
        lines += ["", f"## {NAMES[engine]}"]
        for part, show in parts.items():
            if part in results[engine]:
                lines += ["", *show(results[engine][part])]
    return "\n".join(lines) + "\n"


def _head(part: Mapping[str, Any], words: str) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in part["versions"].items())
    machine = part["machine"]
    load = f", load {machine['load']}" if "load" in machine else ""
    return f"**{words}** ({part['date']}; {part['data']}; {versions}; {machine['processors']} processors{load}.)"


def _same(found: Mapping[str, Any], other: str) -> str:
    same = "the same as" if found["fam_sha256"] == found[other] else "NOT the same as"
    return f"Model `{found['fam_sha256'][:16]}...`: {same} {other}. `audit verify` passes: {found['audit verify']}."


def _whole(part: Mapping[str, Any]) -> list[str]:
    found = part["found"]
    exact = "equal" if found["bytes by site and stage equal the report's"] else "DO NOT equal"
    lines = [
        _head(part, "A whole study, five rounds, nobody lost."),
        _same(found, "in one process"),
        f"Bytes counted at the nodes, by round, site, stage and way, {exact} those of the report.",
        "",
        "| round | seconds | way | report | other messages | sockets | engine's own | share |",
        "|---:|---:|---|---:|---:|---:|---:|---:|",
    ]
    for row in found["rounds"]:
        for way in ("up", "down"):
            counted = row[way]
            payload = counted["all frames at the nodes"]
            own = counted["sockets"] - payload
            lines.append(
                f"| {row['round']} | {row['seconds']} | {way} | {counted['report']:,} | "
                f"{payload - counted['protocol at the nodes']:,} | {counted['sockets']:,} | {own:,} | "
                f"{own / counted['sockets']:.1%} |"
            )
    return [
        *lines,
        "",
        "*Report*: frames of the protocol, as in bytes.csv. *Other messages*: CloseRound and CountersignHead, in the",
        "first round also Hello. *Sockets*: what passed through a TCP proxy between the sites and the server.",
        "*Engine's own*: the difference: TLS, the engine's framing, heartbeats, polls.",
    ]


def _server(part: Mapping[str, Any]) -> list[str]:
    found = part["found"]
    lists = {tuple(sorted(rounds)) for rounds in found["each site trained in rounds"].values()}
    once = all(len(set(rounds)) == len(rounds) for rounds in lists)
    trained = "Every site sent one masked vector a round" if once else "Some site sent TWO masked vectors in a round"
    return [
        _head(part, "The server killed (SIGKILL) between rounds 2 and 3, and started again."),
        _same(found, "in one process"),
        f"{trained}. It went on {found['seconds from start to the study going on']} s after it was started.",
    ]


def _kills(part: Mapping[str, Any]) -> list[str]:
    found = part["found"]
    promise = f"at quorum {found['quorum']:g}: grace {found['grace']:g} s"
    return [
        _head(part, "A site killed (SIGKILL) at each stage, one a round, and the server before each next round."),
        _same(found, "in one process with the same losses"),
        "",
        f"| killed at | the server went on after | promised {promise} and |",
        "|---|---:|---:|",
        *(
            f"| {row['stage']} | {row['seconds after the last living site']} s | {found['promised beyond grace']:g} s |"
            for row in found["stages"]
        ),
    ]


def _private(part: Mapping[str, Any]) -> list[str]:
    found = part["found"]
    once = all(states == ["committed"] * found["rounds"] for states in found["charges in each ledger"].values())
    charged = "one committed charge a round" if once else "NOT one committed charge a round"
    killed = " and at ".join(found["server killed at"])
    return [
        _head(part, f"A study with differential privacy at each hospital; the server killed at {killed}."),
        f"Every ledger holds {charged}; epsilon {found['privacy']['epsilon']:.3f} at {found['privacy']['delta']:g}.",
        f"`audit verify` passes: {found['audit verify']}.",
    ]


def _refusals(part: Mapping[str, Any]) -> list[str]:
    lines = [_head(part, "What a site refuses, and the line of its log."), ""]
    for what, said in part["found"].items():
        site, line = next(iter(said.items()))
        lines.append(f"- {what} ({len(said)} of {len(said)} sites tried; {site}): `{line.replace('`', chr(39))}`")
    return lines
