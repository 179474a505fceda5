"""Hospitals of a sum and hospitals that were lost: nobody is both but at the stages that follow the sum."""

import pytest

from audit.errors import EvidenceError
from audit.round_members import check_aborted, check_lost, check_members, check_opening
from protocols.stages import Stage

COHORT = ["north", "south", "west"]


def of(survivors, dropouts):
    check_members(7, {"cohort": COHORT, "survivors": survivors, "dropouts": dropouts, "bytes": {}}, COHORT)


@pytest.mark.parametrize("stage", list(Stage))
def test_who_is_lost_before_the_sum_is_not_in_it_and_who_is_lost_after_it_is(stage):
    before = stage.rank < Stage.CONSISTENCY_CHECK.rank
    out, within = (COHORT[:2], {"west": stage.value}), (COHORT, {"west": stage.value})
    of(*(out if before else within))
    with pytest.raises(EvidenceError, match=f"west was lost at {stage} and is (not )?in the sum, which cannot be"):
        of(*(within if before else out))


def test_a_stage_that_there_is_not_is_found():
    for check in (lambda lost: of(COHORT, lost), lambda lost: check_lost(7, lost)):
        with pytest.raises(EvidenceError, match="lost at Lunch, which is no stage of a round"):
            check({"west": "Lunch"})


@pytest.mark.parametrize("stage", list(Stage))
@pytest.mark.parametrize("other", list(Stage))
def test_an_attempt_that_ended_lost_and_sent_nothing_at_a_later_stage(stage, other):
    lost = {"dropouts": {"west": other.value}}
    sent = {"bytes": {"west": {"up": {"AdvertiseKeys": {"keys": 3}}, "down": {other.value: {"keys": 3}}}}}
    for fields in (lost, sent):
        if other.rank <= stage.rank:
            check_aborted(7, {"stage": stage.value, **fields})
            continue
        with pytest.raises(EvidenceError, match=f"ended at {stage}, and lost or sent something at {other}"):
            check_aborted(7, {"stage": stage.value, **fields})


def test_an_attempt_ends_at_a_stage_that_there_is():
    with pytest.raises(EvidenceError, match="ended at Lunch, which is no stage of a round"):
        check_aborted(7, {"stage": "Lunch"})


def test_the_survivors_are_those_over_whom_the_sum_was_said_to_be_opened():
    opened = check_opening(6, {"survivors": COHORT[:2]}, COHORT, None)
    fields = {"cohort": COHORT, "survivors": COHORT[:2], "dropouts": {"west": "ShareKeys"}, "bytes": {}}
    check_members(7, fields, COHORT, opened)
    with pytest.raises(EvidenceError, match="not the hospitals over whom the sum was opened"):
        check_members(7, {**fields, "survivors": COHORT, "dropouts": {}}, COHORT, opened)


def test_an_attempt_opens_one_sum_over_its_cohort():
    with pytest.raises(EvidenceError, match="a second sum of one attempt"):
        check_opening(7, {"survivors": COHORT}, COHORT, frozenset(COHORT))
    with pytest.raises(EvidenceError, match="outside of the cohort"):
        check_opening(7, {"survivors": ["east"]}, COHORT, None)
