"""Fixtures of the evidence tests."""

import shutil

import pytest

from tests.audit.runs import Run


@pytest.fixture
def run(tmp_path):
    made = Run(tmp_path / "run")
    yield made
    made.log.close()


@pytest.fixture(scope="session")
def _complete(tmp_path_factory):
    return Run(tmp_path_factory.mktemp("complete") / "run").complete()


@pytest.fixture(scope="session")
def _private(tmp_path_factory):
    return Run(tmp_path_factory.mktemp("private") / "run", rounds=2, private=True).complete(2)


@pytest.fixture
def complete_run(_complete, tmp_path):
    """A finished run of three rounds without privacy, free to be damaged."""
    return shutil.copytree(_complete, tmp_path / "complete")


@pytest.fixture
def private_run(_private, tmp_path):
    """A finished run of two rounds of local DP-SGD, free to be damaged."""
    return shutil.copytree(_private, tmp_path / "private")
