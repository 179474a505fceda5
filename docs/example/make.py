"""Make the example report anew: run the demo with study.toml, attack it, and keep its report.

    python docs/example/make.py

What depends on the run (times, keys, digests, noise) changes with it; a test holds the page against report.json.
"""

import shutil
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from audit.accounting import Adjacency
from audit.ledger import Budget, BudgetLine, Ledger, Policy
from audit.report import write_report
from audit.roster import public_hex
from audit.signing_key import create_key
from securefed.attacks import attack_run
from securefed.config import load_config
from securefed.simulation import simulate

HERE = Path(__file__).resolve().parent
SITES = ("alder", "birch", "cedar", "hazel", "rowan")
BUDGET = 12.0


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        run, ledger = Path(folder) / "example", Path(folder) / "ledger.db"
        signer = public_hex(create_key(Path(folder) / "officer.key"))
        budget = Budget(BUDGET, 1e-5, Adjacency.ADD_OR_REMOVE_ONE, signer)
        with Ledger(ledger) as opened:
            opened.install(Policy({BudgetLine(site, "image"): budget for site in SITES}))
        simulate(load_config(HERE / "study.toml", {"privacy.ledger": str(ledger)}), output=run)
        attack_run(run)
        _, paths = write_report(run, ("html", "json"), roster=run / "roster.json", output=Path(folder) / "pages")
        for path in paths.values():
            shutil.copy(path, HERE / path.name)
            print(HERE / path.name)


if __name__ == "__main__":
    main()
