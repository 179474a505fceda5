"""Ctrl-C between any two steps that end a round, or the run: it resumes to the same model, and the record verifies."""

import pytest

from audit.verify import verify_run
from securefed import outcome, simulation
from securefed.evidence import RunEvidence
from securefed.run_folder import RunFolder
from securefed.simulation import resume_run, simulate

STEPS = {
    "the round in the log": (RunEvidence, "round_completed", 2),
    "the bytes of the round": (RunFolder, "append_rows", 3),
    "the metrics of the round": (RunFolder, "append_rows", 4),
    "the checkpoint": (simulation, "save_checkpoint", 2),
    "the signed checkpoint": (RunEvidence, "checkpoint", 2),
    "the closing round in the log": (RunEvidence, "round_completed", 4),
    "the summary": (outcome, "summarise", 1),
    "the evaluation in the log": (RunEvidence, "evaluated", 1),
}


@pytest.fixture(scope="module")
def whole(features_file, tmp_path_factory):
    """Digest of the run that nobody interrupts, by configuration digest."""
    return {}


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("step", STEPS)
def test_a_run_that_was_interrupted_at_a_step_resumes(small_run, tmp_path, monkeypatch, whole, step, moment):
    config, cache = small_run(), tmp_path / "cache"
    if not whole:
        result = simulate(config, output=tmp_path / "whole", cache_dir=cache)
        whole |= {key: result.summary[key] for key in ("fam_sha256", "mean", "chosen_round")}
    place, name, call = STEPS[step]
    real, calls = getattr(place, name), 0

    def interrupting(*args, **kwargs):
        nonlocal calls
        calls += 1
        if calls == call and moment == "before":
            raise KeyboardInterrupt
        result = real(*args, **kwargs)
        if calls == call:
            raise KeyboardInterrupt
        return result

    monkeypatch.setattr(place, name, interrupting)
    with pytest.raises(KeyboardInterrupt):
        simulate(config, output=tmp_path / "run", cache_dir=cache)
    monkeypatch.undo()
    monkeypatch.setattr("securefed.outcome.draw_plots", lambda folder, chosen_round: None)
    resumed = resume_run(tmp_path / "run", cache_dir=cache)
    assert {key: resumed.summary[key] for key in whole} == whole
    checked = verify_run(resumed.folder.path)
    assert checked.is_verified, [check for check in checked.checks if check.outcome != "ok"]
