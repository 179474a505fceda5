"""Make the example report anew: run the demo with study.toml, attack it, and keep its report.

    python docs/example/make.py

What depends on the run (times, keys, digests, noise) changes with it; a test holds the page against report.json.
"""

import shutil
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from audit.report import write_report
from securefed.attacks import attack_run
from securefed.config import load_config
from securefed.simulation import simulate

HERE = Path(__file__).resolve().parent


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "example"
        simulate(load_config(HERE / "study.toml"), output=run)
        attack_run(run)
        _, paths = write_report(run, ("html", "json"), roster=run / "roster.json")
        for path in paths.values():
            shutil.copy(path, HERE / path.name)
            print(HERE / path.name)


if __name__ == "__main__":
    main()
