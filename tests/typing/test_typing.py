"""mypy rejects every line of rejected_calls.py that says so, and no other."""

import re
import subprocess
import sys
from pathlib import Path

CALLS = Path(__file__).with_name("rejected_calls.py")


def test_misuse_is_a_type_error(tmp_path):
    expected = {
        number for number, line in enumerate(CALLS.read_text(encoding="utf-8").split("\n"), 1) if "# reject" in line
    }
    command = [sys.executable, "-m", "mypy", "--cache-dir", str(tmp_path), "--follow-imports=silent", str(CALLS)]
    result = subprocess.run(command, capture_output=True, text=True, check=False, cwd=CALLS.parents[2])
    reported = {int(number) for number in re.findall(r"rejected_calls\.py:(\d+): error", result.stdout)}
    assert reported == expected, result.stdout + result.stderr
