"""Sums that the protocol cannot have opened, by what a log says of its terms and of who was there."""

from fractions import Fraction
from types import SimpleNamespace

import pytest

from audit.check_sums import check_fewest, check_sums, left_on_ring
from audit.errors import EvidenceError
from protocols.parameters import COMPLETE_UP_TO, least_complete_threshold, least_threshold, ring_quorum
from protocols.plan import plan
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


def sized_for(fewest, survivors=None, **terms):
    """One round of hospitals whose shares of noise are said to be sized for so few."""
    values = {} if fewest is None else {"min_survivors": fewest}
    return history(terms["clients"] if survivors is None else survivors, values=values, **terms)


def test_shares_on_a_ring_are_sized_for_all_that_the_losses_leave():
    """With a threshold among neighbours in its place a server states noise of 35 hospitals where it is that of 91."""
    left = 120 - 12
    check_fewest(sized_for(left, **ring()), 0.1)
    for stated in (None, 41, ring_quorum(120, 24), left - 1, left + 1, 120):
        with pytest.raises(EvidenceError, match=rf"states min_survivors {stated}, its sums are over {left} hospitals"):
            check_fewest(sized_for(stated, **ring()), 0.1)
    with pytest.raises(EvidenceError, match=f"{left - 1} hospitals are in the sum of round 1, below min_survivors"):
        check_fewest(sized_for(left, left - 1, **ring()), 0.1)


def test_shares_on_a_ring_are_sized_for_its_quorum_at_least():
    """Losses that leave fewer: no sum is over so few, and shares sized for them would state too little noise."""
    quorum, left = ring_quorum(120, 24), 120 - 36
    assert left < quorum
    with pytest.raises(EvidenceError, match=f"min_survivors {left}, its sums are over {quorum} hospitals or more"):
        check_fewest(sized_for(left, **ring()), 0.3)


@pytest.mark.parametrize("model", list(ThreatModel))
@pytest.mark.parametrize(("clients", "corrupt"), [(9, 1), (9, 4), (COMPLETE_UP_TO, 20), (120, 30)])
def test_where_all_hold_shares_they_are_sized_for_the_threshold(model, clients, corrupt):
    threshold = least_complete_threshold(clients, corrupt, model)
    terms = {"threat_model": model.value, "clients": clients, "corrupt": corrupt, "threshold": threshold}
    fewest = max(threshold, corrupt + 3)
    check_fewest(sized_for(fewest, **terms), 0.1)
    for stated in (None, fewest - 1, fewest + 1):
        with pytest.raises(EvidenceError, match=f"states min_survivors {stated}"):
            check_fewest(sized_for(stated, **terms), 0.1)


@pytest.mark.parametrize(("clients", "corrupt"), [(102, 20), (110, 0), (150, 15)])
@pytest.mark.parametrize("losses", [0.0, 0.07, 0.1])
def test_what_is_left_on_a_ring_is_what_the_plan_has(clients, corrupt, losses):
    planned = plan(clients, Fraction(corrupt, clients), losses)
    assert not planned.is_complete
    assert left_on_ring(clients, losses) == planned.min_survivors
    terms = {"threat_model": "active", "clients": clients, "corrupt": corrupt, "threshold": planned.threshold}
    check_fewest(sized_for(planned.min_survivors, **terms), losses)
