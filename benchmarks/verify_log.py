"""Time to write, sign and verify a log of 5,000 events, in processor seconds of this machine.

    python benchmarks/verify_log.py [EVENTS]

The run has three hospitals that countersign after every round, an event a second in a round of five events; what is
verified is what `audit verify` verifies: chain, history, every signature, files, model and bytes.
"""

import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from audit.verify import verify_run
from tests.audit.runs import Run


def main() -> None:
    events = int(sys.argv[1]) if len(sys.argv) > 1 else 5000
    rounds = events // 2
    with tempfile.TemporaryDirectory() as folder:
        start = time.process_time()
        run = Run(Path(folder) / "run", rounds=0)
        for number in range(1, rounds + 1):
            if number % 25:
                run.start(number)
                with run.log.batch():
                    from tests.audit.runs import round_fields

                    run.log.append("round_completed", round_fields(number))
            else:
                run.round(number)
        path = run.complete(rounds)
        written = time.process_time() - start
        start = time.process_time()
        found = verify_run(path)
        verified = time.process_time() - start
        assert found.is_verified, found.failed
        heads = next(check.detail for check in found.checks if check.name == "signatures")
    print(f"{found.events} events ({heads})")
    print(f"written and signed in {written:.2f} s, verified in {verified:.2f} s")


if __name__ == "__main__":
    main()
