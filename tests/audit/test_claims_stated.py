"""A claim is held to each epsilon that it is about: leaving one out of the record is no way around."""

import dataclasses

import pytest

from audit.accounting import Gaussian, mechanism_fields
from audit.check_epsilon import _check_all_stated, _check_claimable
from audit.errors import EvidenceError
from audit.history import read_history
from audit.log import EventLog
from tests.audit.runs import SITES, D, Ticks, configuration, round_fields

BROKEN, SUMS, SUMS_KNOWN = ("aggregation-broken", 0), ("aggregate-only", 0), ("aggregate-only", 2)
EVERYBODY = ("everybody", 0)


def history_of(tmp_path, mode, stated, *, before=(), upper=1.0):
    """A run of one round that has ended, with the views stated before and after its last release."""
    values = configuration(1)
    values["privacy"] |= {"mode": mode, "max_colluders": 2}
    claim = {"mode": mode, "claim": "CLAIMED", "reason": "noise", "unit": "image", "delta": 1e-5}
    with EventLog.create(tmp_path / "audit.jsonl", {"run_id": "run", "operation": "simulation"}, Ticks()) as log:
        log.append("config", {"digest": D, "values": values})
        log.append("privacy_claim", {**claim, "adjacency": "add-or-remove-one", "values": {"noise": "system"}})
        log.append("round_started", {"round": 1, "cohort": list(SITES), "model_digest": D})

        def state(views):
            for view, colluders in views:
                figures = {"view": view, "delta": 1e-5, "upper": upper, "accountant": "RDP"}
                log.append("epsilon", figures | ({"colluders": colluders} if colluders else {}))

        state(before)
        log.append("privacy_event", {"mechanism": mechanism_fields(Gaussian(20.0)), "repetitions": 1, "round": 1})
        state(stated)
        log.append("round_completed", round_fields(1))
        history = read_history(log.events)
    return dataclasses.replace(history, completed=history.events[-1])


@pytest.mark.parametrize(
    ("mode", "stated"),
    [
        ("local", [EVERYBODY]),
        ("distributed", [SUMS, SUMS_KNOWN, BROKEN]),
        ("hospital", [SUMS, SUMS_KNOWN, BROKEN]),
    ],
)
def test_each_epsilon_of_a_claim_is_stated_after_the_last_release(tmp_path, mode, stated):
    (tmp_path / "whole").mkdir()
    _check_all_stated(history_of(tmp_path / "whole", mode, stated))
    for number, (view, colluders) in enumerate(stated):
        folder = tmp_path / str(number)
        folder.mkdir()
        others = [one for one in stated if one != (view, colluders)]
        history = history_of(folder, mode, others, before=stated)
        against = f"{view} with {colluders} colluders" if colluders else view
        with pytest.raises(EvidenceError, match=f"no epsilon is stated against {against} after the last release"):
            _check_all_stated(history)


@pytest.mark.parametrize(("view", "upper", "fails"), [(SUMS, 22.9, False), (SUMS, 23.1, True), (BROKEN, 60.0, False)])
def test_nothing_is_claimed_above_what_means_something(tmp_path, view, upper, fails):
    stated = history_of(tmp_path, "distributed", [view], upper=upper).of_kind("epsilon")
    if not fails:
        return _check_claimable(stated)
    with pytest.raises(EvidenceError, match="above 23 nothing can be"):
        _check_claimable(stated)
    return None
