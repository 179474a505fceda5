"""Four hospitals that have approved a study by the commands that their admins type (tests/nodes), for deployments."""

import importlib.util
import sys
from pathlib import Path

import pytest

from securefed.deploy import processes

TESTS = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(TESTS / "nodes"), str(TESTS / "engines")]


def load(name, path):
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def hospitals():
    """The module that makes them: Trial, Folders, NAMES, call."""
    return load("hospitals_of_a_trial", TESTS / "nodes" / "test_site.py")


@pytest.fixture(scope="session")
def engines():
    """The module that knows whether an engine is there: require_engine, free_port."""
    return load("engines_of_a_trial", TESTS / "engines" / "conftest.py")


@pytest.fixture
def folder(tmp_path):
    """A deployment's folder; what was started from it is ended with the test."""
    yield tmp_path
    processes.stop_parties(tmp_path)
