"""Acceptance of a deployment over an engine, with server and sites as processes on loopback, TLS and real images.

Run from the root of the repository, with the extra of the engine installed::

    python benchmarks/deployment.py --engine flare --data DIR --encoder local-dir:DIR --cache DIR --work DIR \\
        --output docs/results

DIR of --data holds metadata.csv (path, label, site, patient, split) and one folder a site; --work is a scratch folder
with a short path. Parts (all unless named with --part):

- `whole`: five rounds beside the same ones in one process, with every byte counted;
- `server`: the server killed (SIGKILL) between two rounds, nobody lost;
- `kills`: a site killed at each stage of a round, and the server between the rounds;
- `private`: the server killed twice in a study with differential privacy, whose ledgers must show each release once;
- `refusals`: what a site must refuse, and the line of its log.

What is found is added to deployment.json in --output, and deployment.md is written from it.
"""

import argparse
import csv
import importlib.metadata
import itertools
import json
import os
import platform
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import deployment_refusals
import deployment_report
from deployment_taps import Gates
from deployment_trial import Hospitals, Source, Trial, charges, deployed

from protocols.transport import Patience
from securefed.config import STAGES
from securefed.deploy.deployment import SERVER

PACKAGES = {"flare": "nvflare", "flower": "flwr"}
ROUNDS = 5
PROMISED = {"flare": 2.0, "flower": 10.0}
"""Seconds beyond grace after which a stage with a dead site must have ended."""
GRACE = {"flare": 5.0, "flower": 20.0}
"""Sites on Flower answer seconds apart, since each looks for messages every three seconds."""
REVIVAL = {"flare": 0.0, "flower": 65.0}
"""Flower refuses the key of a killed node for a minute."""
LONG = 3600.0
IN_PROCESS = ("in one process", "in one process with the same losses")
"""Under what a part gives the model of the same rounds in one process."""


def whole(engine: str, work: Path, source: Source) -> dict[str, Any]:
    """Five rounds, nobody lost: model, record, report, and every byte."""
    hospitals = Hospitals(work / "five", source, ROUNDS, "best-val")
    with deployed(engine, work / "t", hospitals, Patience(timeout=LONG, grace=60, quorum=1)) as trial:
        started = trial.start_all()
        lines = trial.wait_for(("completed", "failed"), LONG)
        status = trial.deployment.status()
        trial.deployment.stop()
        summary, verified = trial.summary(), trial.verify(hospitals.folder / "roster.json")
        seen = {site: sorted(path.name for path in (folder / "runs").iterdir()) for site, folder in trial.sites.items()}
        roster, written = hospitals.folder / "roster.json", work / "reports"
        reports = [trial.report(roster, form, written) for form in ("html", "pdf")]
        return {
            "fam_sha256": summary["fam_sha256"],
            "in one process": source.in_one_process(work / "one-five", ROUNDS, "best-val"),
            "audit verify": verified,
            "seconds until the study began": round(started, 1),
            "rounds": _rounds(trial, lines),
            "bytes by site and stage equal the report's": _same_bytes(trial),
            "connections through the proxy": trial.proxy.connections,
            "job": status["job"],
            "kept at the hospitals": seen,
            "bytes of the report": {path.suffix[1:]: path.stat().st_size for path in reports},
        }


def _times(lines: list[dict[str, Any]], event: str) -> list[float]:
    return [datetime.fromisoformat(line["time"]).timestamp() for line in lines if line["event"] == event]


def _rounds(trial: Trial, lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return for each round what passed on sockets, at the nodes, and what the report counts."""
    if not trial.proxy.connections:
        raise RuntimeError("no site called the server through the proxy: nothing was counted")
    edges = [*_times(lines, "started"), *_times(lines, "round")]
    counted: dict[int, dict[str, int]] = defaultdict(lambda: {"up": 0, "down": 0})
    for line in _byte_rows(trial):
        counted[int(line["round"])]["up" if line["direction"] == "upload" else "down"] += int(line["bytes"])
    found = []
    for number, (after, until) in enumerate(itertools.pairwise(edges), 1):
        inside = [passed for passed in trial.gates.passed if after < passed.came <= until]
        row: dict[str, Any] = {"round": number, "seconds": round(until - after, 2)}
        for way in ("up", "down"):
            payload = sum(getattr(passed, way) for passed in inside)
            protocol = sum(getattr(passed, way) for passed in inside if passed.round is not None)
            row[way] = {
                "report": counted[number][way],
                "protocol at the nodes": protocol,
                "all frames at the nodes": payload,
                "sockets": trial.proxy.bytes(way, after, until),
            }
        found.append(row)
    return found


def _byte_rows(trial: Trial) -> list[dict[str, str]]:
    with (trial.run_folder / "bytes.csv").open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def _same_bytes(trial: Trial) -> bool:
    """Return whether every site's bytes at every stage of every round are the report's."""
    counted: dict[tuple[int, str, str, str], int] = defaultdict(int)
    for row in _byte_rows(trial):
        counted[int(row["round"]), row["site"], row["stage"], row["direction"]] += int(row["bytes"])
    seen: dict[tuple[int, str, str, str], int] = defaultdict(int)
    for passed in trial.gates.passed:
        if passed.round is not None:
            seen[passed.round, passed.site, passed.stage, "upload"] += passed.up
            seen[passed.round, passed.site, passed.stage, "download"] += passed.down
    return counted == seen


def kills(engine: str, work: Path, source: Source) -> dict[str, Any]:
    """One site killed at each stage, one a round; the server killed before the next round; a last round in peace."""
    rounds = len(STAGES) + 1
    hospitals = Hospitals(work / "six", source, rounds, "last")
    victim = hospitals.sites[-1]
    plan = dict(enumerate(STAGES, 1))
    wait = Patience(timeout=LONG, grace=GRACE[engine], quorum=0.75)
    with deployed(engine, work / "t", hospitals, wait) as trial:
        killer = _Killer(trial, [(number + 1, STAGES[0]) for number in plan], victim, plan)
        trial.start_all()
        for number in plan:
            killer.wait_for((number + 1, STAGES[0]))
            time.sleep(REVIVAL[engine])
            trial.deployment.start([victim, SERVER])
            trial.deployment.submit()
        trial.wait_for(("completed",), LONG)
        trial.deployment.stop()
        drops = [f"{victim}@{number}:{stage}" for number, stage in plan.items()]
        summary = trial.summary()
        return {
            "fam_sha256": summary["fam_sha256"],
            "in one process with the same losses": source.in_one_process(work / "one-six", rounds, "last", drops),
            "losses in the record": _losses(trial),
            "audit verify": trial.verify(hospitals.folder / "roster.json"),
            "grace": wait.grace,
            "quorum": wait.quorum,
            "promised beyond grace": PROMISED[engine],
            "stages": [
                {"stage": stage, **_delay(trial.gates, victim, number, stage)} for number, stage in plan.items()
            ],
            "server killed before rounds": [number + 1 for number in plan],
            "each site trained in rounds": _trained(trial.gates),
        }


class _Killer:
    """Kills a site when a request of its stage comes, and the server when it asks for what `cuts` name, once each.

    Args:
        trial: The deployment.
        cuts: (round, stage) of the server's requests.
        victim: The site.
        plan: {round: stage at which the site is killed}.
    """

    def __init__(
        self, trial: Trial, cuts: Sequence[tuple[int, str]], victim: str = "", plan: Mapping[int, str] | None = None
    ) -> None:
        self._trial, self._cuts, self._victim, self._plan = trial, cuts, victim, plan or {}
        self._cut: set[tuple[int, str]] = set()
        trial.gates.on_request = self._on_request

    def _on_request(self, site: str, stage: str, number: int | None) -> None:
        if number is None:
            return
        if site == self._victim and self._plan.get(number) == stage:
            self._trial.kill(self._victim)
        if (number, stage) in self._cuts and (number, stage) not in self._cut:
            self._trial.kill(SERVER)
            self._cut.add((number, stage))

    def wait_for(self, cut: tuple[int, str]) -> None:
        """Wait until the server was killed there."""
        deadline = time.monotonic() + LONG
        while cut not in self._cut:
            if time.monotonic() > deadline:
                raise RuntimeError(f"the server does not come to {cut}")
            time.sleep(0.1)


def _delay(gates: Gates, victim: str, number: int, stage: str) -> dict[str, float]:
    """Return how long the others waited for the dead site: from their last reply to the next exchange."""
    last = max(p.left for p in gates.passed if (p.round, p.stage) == (number, stage) and p.site != victim)
    following = min(came for (site, _, _), came in gates.all_came if site != victim and came > last)
    return {"seconds after the last living site": round(following - last, 2)}


def _losses(trial: Trial) -> dict[str, Any]:
    events = [json.loads(line) for line in (trial.run_folder / "audit.jsonl").read_text().splitlines()]
    found = {}
    for event in events:
        fields = event.get("fields", event)
        if event.get("kind") == "round_completed":
            found[str(fields["round"])] = fields["dropouts"]
    return found


def _trained(gates: Gates) -> dict[str, list[int]]:
    """Return {site: rounds in which it sent a masked vector}, one entry a vector."""
    found: dict[str, list[int]] = defaultdict(list)
    for passed in gates.passed:
        if passed.stage == "MaskedInputCollection" and passed.round is not None:
            found[passed.site].append(passed.round)
    return dict(found)


def server(engine: str, work: Path, source: Source) -> dict[str, Any]:
    """The server killed between rounds 2 and 3; nobody else is lost."""
    rounds = 3
    hospitals = Hospitals(work / "three", source, rounds, "last")
    with deployed(engine, work / "t", hospitals, Patience(timeout=LONG, grace=60, quorum=1)) as trial:
        killer = _Killer(trial, [(3, STAGES[0])])
        trial.start_all()
        killer.wait_for((3, STAGES[0]))
        finished = len(_times(list(trial.deployment.progress()), "round"))
        began = time.monotonic()
        trial.deployment.start([SERVER])
        trial.deployment.submit()
        trial.wait_for(("started",), LONG, count=2)
        back = time.monotonic() - began
        trial.wait_for(("completed",), LONG)
        trial.deployment.stop()
        return {
            "fam_sha256": trial.summary()["fam_sha256"],
            "in one process": source.in_one_process(work / "one-three", rounds, "last"),
            "rounds finished before the kill": finished,
            "seconds from start to the study going on": round(back, 1),
            "each site trained in rounds": _trained(trial.gates),
            "audit verify": trial.verify(hospitals.folder / "roster.json"),
        }


def private(engine: str, work: Path, source: Source) -> dict[str, Any]:
    """A study with differential privacy at each hospital; the server killed in a round and between two."""
    rounds, cuts = 3, [(2, "ConsistencyCheck"), (3, STAGES[0])]
    settings = ("privacy.mode=local", "privacy.epsilon=8.0")
    hospitals = Hospitals(work / "private", source, rounds, "last", *settings, budget=9.0)
    with deployed(engine, work / "t", hospitals, Patience(timeout=LONG, grace=60, quorum=1)) as trial:
        killer = _Killer(trial, cuts)
        trial.start_all()
        for cut in cuts:
            killer.wait_for(cut)
            trial.deployment.start([SERVER])
            trial.deployment.submit()
        trial.wait_for(("completed",), LONG)
        trial.deployment.stop()
        return {
            "rounds": rounds,
            "server killed at": [f"{stage} of round {number}" for number, stage in cuts],
            "masked vectors by round": _trained(trial.gates),
            "charges in each ledger": {site: charges(folder) for site, folder in trial.sites.items()},
            "privacy": {key: trial.summary()["privacy"][key] for key in ("epsilon", "delta", "claim")},
            "audit verify": trial.verify(hospitals.folder / "roster.json"),
        }


def main() -> None:
    parts = {
        "whole": whole,
        "server": server,
        "kills": kills,
        "private": private,
        "refusals": deployment_refusals.refusals,
    }
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engine", choices=sorted(PACKAGES), required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--encoder", required=True)
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=3)
    parser.add_argument("--part", action="append", choices=sorted(parts))
    chosen = parser.parse_args()
    source = Source(chosen.data.absolute(), chosen.encoder, chosen.cache.absolute(), chosen.seed)
    work, path = chosen.work.absolute(), chosen.output / "deployment.json"
    for folder in (work, chosen.output):
        folder.mkdir(parents=True, exist_ok=True)
    for name in chosen.part or parts:
        began = time.monotonic()
        found = parts[name](chosen.engine, work, source)
        seconds = time.monotonic() - began
        results = json.loads(path.read_text()) if path.exists() else {}
        results.setdefault(chosen.engine, {})[name] = {
            "date": datetime.now(UTC).date().isoformat(),
            "versions": {p: importlib.metadata.version(p) for p in (PACKAGES[chosen.engine], "cryptography", "torch")},
            "machine": {
                "processors": os.cpu_count(),
                "load": round(os.getloadavg()[2], 1),
                "system": platform.platform(),
                "python": platform.python_version(),
            },
            "data": source.data.name,
            "seconds": round(seconds, 1),
            "found": found,
        }
        path.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
        (chosen.output / "deployment.md").write_text(deployment_report.page(results), encoding="utf-8")
        print(f"{chosen.engine} {name}: {seconds:.0f} s", flush=True)
        models = {found[key] for key in ("fam_sha256", *IN_PROCESS) if key in found}
        if len(models) > 1:
            raise SystemExit(f"{chosen.engine} {name}: the deployed model is not the one of the run in one process")


if __name__ == "__main__":
    main()
