"""Reports of the runs of tests/audit/conftest.py."""

import pytest

from audit.report import (
    build_report,
)


@pytest.fixture
def private_report(private_run):
    return build_report(private_run)


@pytest.fixture
def report(complete_run):
    return build_report(complete_run)
