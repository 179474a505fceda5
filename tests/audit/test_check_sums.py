"""Sums that the protocol cannot have opened, by what a log says of its terms and of who was there."""

from types import SimpleNamespace

import pytest

from audit.check_sums import check_sums
from audit.errors import EvidenceError
from protocols.parameters import COMPLETE_UP_TO, least_threshold, ring_quorum
from protocols.stages import ThreatModel


def history(survivors, lost=0, stage="ConsistencyCheck", **terms):
    """One round whose sum has the first `survivors` hospitals, the first `lost` of whom were lost at a stage."""
    names = [f"h{number:04d}" for number in range(survivors)]
    dropouts = dict.fromkeys(names[:lost], stage)
    opened = SimpleNamespace(
        seq=7, number=1, survivors=names, dropouts=dropouts, opened_by=len(set(names) - set(dropouts))
    )
    described = SimpleNamespace(seq=2, fields=terms)
    return SimpleNamespace(threshold=terms["threshold"], rounds=[opened], last=lambda _: described)


def ring(**changes):
    return {"threat_model": "active", "clients": 120, "corrupt": 24, "threshold": 41, **changes}


def test_a_ring_is_opened_by_a_quorum_of_the_whole_cohort():
    quorum = ring_quorum(120, 24)
    said = check_sums(history(quorum, **ring()))
    assert said.endswith(
        f"the threshold is 41 of each one's neighbours; {quorum} or more signed, the quorum is {quorum}"
    )
    with pytest.raises(
        EvidenceError, match=f"{quorum - 1} hospitals were left to sign .* below the quorum of {quorum}"
    ):
        check_sums(history(quorum - 1, **ring()))
    with pytest.raises(EvidenceError, match="below the quorum"):
        check_sums(history(120, 120 - quorum + 1, **ring()))
    assert check_sums(history(120, 120 - quorum + 1, "Unmasking", **ring()))


@pytest.mark.parametrize("changes", [{"threshold": 120}, {"threshold": 5000}, {"corrupt": 119}, {"threshold": 2}])
def test_a_ring_that_cannot_be_is_found(changes):
    with pytest.raises(EvidenceError, match="the protocol opens no sum with it"):
        check_sums(history(120, **ring(**changes)))


@pytest.mark.parametrize("model", list(ThreatModel))
@pytest.mark.parametrize(("clients", "corrupt"), [(9, 1), (9, 6), (COMPLETE_UP_TO, 20)])
def test_where_all_hold_shares_the_threshold_is_one_that_the_protocol_has(model, clients, corrupt):
    least = least_threshold(clients, corrupt, model)
    terms = {"threat_model": model.value, "clients": clients, "corrupt": corrupt}
    if least <= clients:
        assert "neighbours" not in check_sums(history(clients, **terms, threshold=least))
    with pytest.raises(EvidenceError, match="the protocol opens no sum with it"):
        check_sums(history(clients, **terms, threshold=least - 1))


def test_who_may_collude_leaves_three_others_in_every_sum():
    terms = {"threat_model": "semi-honest", "clients": 9, "corrupt": 6, "threshold": 7}
    assert check_sums(history(9, **terms))
    with pytest.raises(EvidenceError, match="8 hospitals are in the sum of round 1: beside 6 that may collude"):
        check_sums(history(8, **terms))
    with pytest.raises(EvidenceError, match="the protocol opens no sum with it"):
        check_sums(history(9, **{**terms, "corrupt": 7, "threshold": 8}))
