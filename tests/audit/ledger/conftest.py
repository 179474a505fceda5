"""A ledger with one budget."""

import pytest

from audit.ledger import Ledger
from tests.audit.ledger.money import policy
from tests.audit.runs import Ticks


@pytest.fixture
def path(tmp_path):
    return tmp_path / "ledger.db"


@pytest.fixture
def ledger(path):
    with Ledger(path, Ticks()) as opened:
        opened.install(policy())
        yield opened
