"""Fixtures of the evidence tests."""

import pytest

from tests.audit.runs import Run


@pytest.fixture
def run(tmp_path):
    made = Run(tmp_path / "run")
    yield made
    made.log.close()


@pytest.fixture
def complete_run(run):
    return run.complete()
