"""A program: the command line where the named distributions and what they require are installed, and no others.

Arguments: the distributions, with commas. Standard input: a JSON list of commands, lists of arguments. Standard output:
what they print, then a line with their exit codes as a JSON list.
"""

import importlib.abc
import importlib.metadata
import json
import re
import sys
from pathlib import Path

OWN = {"cli", "securefed", "audit", "clients", "protocols"}


def normal(name):
    return re.sub(r"[-_.]+", "-", name).lower()


def with_requirements(names):
    """The distributions and all that they require, those of extras left out."""
    installed = {normal(found.metadata["Name"]): found for found in importlib.metadata.distributions()}
    found, ahead = set(), [normal(name) for name in names]
    while ahead:
        name = ahead.pop()
        if name in found or name not in installed:
            continue
        found.add(name)
        lines = [line for line in installed[name].requires or () if "extra ==" not in line]
        ahead += [normal(re.match(r"[A-Za-z0-9._-]+", line)[0]) for line in lines]
    return found


class Missing(importlib.abc.MetaPathFinder):
    """Finds nothing of what is not installed here."""

    def __init__(self, kept):
        owners = importlib.metadata.packages_distributions()
        self.blocked = {name for name, of in owners.items() if not kept & {normal(one) for one in of}} - OWN

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in self.blocked:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


def main():
    missing = Missing(with_requirements(sys.argv[1].split(",")))
    assert {"torch", "open_clip", "pyarrow", "sklearn", "numba"} <= missing.blocked
    for name in [name for name in sys.modules if name.partition(".")[0] in missing.blocked]:
        del sys.modules[name]
    sys.meta_path.insert(0, missing)
    sys.path.insert(0, str(Path(__file__).resolve().parents[3]))
    codes = []
    for command in json.load(sys.stdin):
        sys.argv = ["securefed", *command]
        try:
            import cli

            cli.main()
        except SystemExit as end:
            if isinstance(end.code, str):
                sys.stderr.write(f"{end.code}\n")
            codes.append(end.code if isinstance(end.code, int) else int(end.code is not None))
    sys.stdout.write(f"{json.dumps(codes)}\n")


if __name__ == "__main__":
    main()
