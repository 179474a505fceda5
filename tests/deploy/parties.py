"""Parties of a deployment that are played by a few lines of Python."""

import os
import sys

from securefed.deploy import processes


def play(folder, party, code):
    processes.start_party(folder, party, [sys.executable, "-c", code], dict(os.environ), folder)
