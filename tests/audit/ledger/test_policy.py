"""Policies of budgets: read from a file, held to their rules, installed once."""

import re
from dataclasses import replace

import pytest

from audit import EvidenceError
from audit.ledger import (
    Ledger,
    LedgerError,
    Policy,
    Renewal,
    SignedRenewal,
)
from audit.roster import _SMALL_ORDER
from tests.audit.ledger.money import LINE, SIGNER, policy, policy_text

POLICY = policy_text(SIGNER.public_key().public_bytes_raw().hex())


def test_a_policy_file_is_read_and_installed_once(tmp_path, ledger):
    (tmp_path / "policy.toml").write_text(POLICY)
    read = Policy.read(tmp_path / "policy.toml")
    assert read == policy()
    ledger.install(read)
    (tmp_path / "policy.toml").write_text(POLICY.replace("epsilon = 3", "epsilon = 30"))
    with pytest.raises(LedgerError, match="only a signed renewal"):
        ledger.install(Policy.read(tmp_path / "policy.toml"))
    assert ledger.budgets()[LINE].epsilon == 3


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("epsilon = 3", "epsilon = 0"),
        ("epsilon = 3", "epsilon = inf"),
        ("epsilon = 3", "epsilom = 3"),
        ("delta = 1e-5", "delta = 1.0"),
        ("delta = 1e-5", "delta = 0.5"),
        ("delta = 1e-5", "delta = 0.01"),
        ("delta = 1e-5", "delta = 1e-11"),
        ('"image"', '"person"'),
        ("/1", "/2"),
        ("[[budget]]", "[budget]"),
        ("signer = ", "signer = 0 #"),
        ("add-or-remove-one", "any"),
        ("format", "[x"),
    ],
)
def test_a_policy_with_an_error_is_refused(tmp_path, old, new):
    (tmp_path / "policy.toml").write_text(POLICY.replace(old, new))
    with pytest.raises(LedgerError):
        Policy.read(tmp_path / "policy.toml")


@pytest.mark.parametrize("sign", [0, 0x80])
@pytest.mark.parametrize("point", sorted(_SMALL_ORDER))
def test_a_budget_that_anybody_could_renew_is_refused(tmp_path, path, point, sign):
    """Under a key of small order the signature R = that key, S = 0 holds for every message, or for one in eight."""
    weak = (point[:-1] + bytes([point[-1] | sign])).hex()
    (tmp_path / "policy.toml").write_text(re.sub('(signer = )".*"', rf'\1"{weak}"', POLICY))
    with pytest.raises(LedgerError, match=r"north a signer under whose key anybody can sign.*keys new"):
        Policy.read(tmp_path / "policy.toml")
    with Ledger(path) as ledger:
        with pytest.raises(EvidenceError, match="anybody can renew the budget of north"):
            ledger.install(Policy({LINE: replace(policy().budgets[LINE], signer=weak)}))
        assert not ledger.budgets()
    forged = (SignedRenewal(Renewal(LINE, serial, 99.0, "more"), weak + "00" * 32) for serial in range(1, 65))
    assert not any(renewal.is_by(weak) for renewal in forged)


def test_a_policy_of_a_program_is_held_to_the_same_deltas():
    with pytest.raises(ValueError, match=r"0\.5 is outside \[1e-10, 0\.01\)"):
        policy(delta=0.5)


def test_a_policy_that_repeats_a_line_or_is_missing_is_refused(tmp_path):
    (tmp_path / "policy.toml").write_text(POLICY + POLICY[POLICY.index("[[") :])
    with pytest.raises(LedgerError, match="two budgets"):
        Policy.read(tmp_path / "policy.toml")
    with pytest.raises(LedgerError, match="cannot be read"):
        Policy.read(tmp_path / "absent.toml")
