import pytest

from protocols.entropy import system_entropy
from protocols.roster import IdentityKey, Roster
from securefed.compression_choice import LADDER
from securefed.compression_pilot import Trial, settle_compression, smallest_within
from securefed.config import config_from_mapping
from securefed.errors import ConfigError
from securefed.observer import Observer
from securefed.simulation import simulate
from securefed.sum_terms import SumTerms


class Notes(Observer):
    def __init__(self):
        self.texts = []

    def noted(self, text):
        self.texts.append(text)


def choose(limit, lost):
    """Try schemes that lose what is said, by how many places above the smallest they are."""
    tried = []

    def attempt(scheme):
        tried.append(scheme)
        ensemble, fam = (0, 0) if scheme == "none" else lost[len(LADDER) - 1 - LADDER.index(scheme)]
        return Trial(scheme, {"ensemble": 80.0 - ensemble, "fam": 75.0 - fam})

    scheme, reason = smallest_within(limit, attempt)
    return scheme, reason, tried


def test_the_smallest_scheme_within_the_target_is_taken_and_the_next_smaller_is_named():
    scheme, reason, tried = choose(0.5, [(3, 4), (0.2, 0.9), (-0.1, 0.4)])
    assert scheme == LADDER[-3]
    assert tried == ["none", LADDER[-1], LADDER[-2], LADDER[-3]]
    assert f"{scheme} loses -0.10 points of the ensemble and 0.40 points of the fam (at most 0.5 asked)" in reason
    assert f"{LADDER[-2]} would lose 0.20 points of the ensemble and 0.90" in reason


def test_either_part_can_refuse_a_scheme():
    assert choose(1, [(1.5, 0), (0, 1.5), (1, 1)])[0] == LADDER[-3]


def test_nothing_is_compressed_where_everything_loses_too_much():
    scheme, reason, tried = choose(0.1, [(1, 1)] * (len(LADDER) - 1))
    assert scheme == "none"
    assert "every other scheme loses more" in reason
    assert len(tried) == len(LADDER)


def test_a_run_has_the_compression_that_was_chosen_and_says_why_before_it_starts(small_run, tmp_path):
    auto = {"compression": "auto", "accuracy_loss": 100.0}
    config = small_run(secure_aggregation=auto, federation={"rounds": 1})
    notes = Notes()
    result = simulate(config, output=tmp_path / "run", cache_dir=tmp_path / "cache", observer=notes)
    assert result.summary["secure_aggregation"]["compression"] == LADDER[-1]
    assert f'compression = "{LADDER[-1]}"' in (tmp_path / "run" / "config.toml").read_text(encoding="utf-8")
    assert [text.split()[2] for text in notes.texts] == ["none", LADDER[-1], LADDER[-1]]
    assert "validation images" in notes.texts[0]
    assert "at most 100 asked" in notes.texts[2]


def test_configurations_without_a_target_are_not_touched(small_run, tmp_path):
    config = small_run(secure_aggregation={"compression": "auto"})
    assert settle_compression(config, tmp_path, Observer()) is config


@pytest.mark.parametrize(
    ("sections", "reason"),
    [
        ({"secure_aggregation": {"accuracy_loss": 0.5}}, "only auto"),
        ({"secure_aggregation": {"compression": "auto", "accuracy_loss": -1}}, "0 to 100"),
    ],
)
def test_a_target_that_means_nothing_is_refused(sections, reason):
    with pytest.raises(ConfigError, match=reason):
        config_from_mapping(sections)


def test_a_target_is_refused_where_trials_would_be_a_release_or_nothing_is_shared(small_run, tmp_path):
    auto = {"compression": "auto", "accuracy_loss": 0.5}
    private = config_from_mapping({"secure_aggregation": auto, "privacy": {"mode": "local", "epsilon": 8.0}})
    with pytest.raises(ConfigError, match="nobody counts"):
        settle_compression(private, tmp_path, Observer())
    alone = config_from_mapping({"secure_aggregation": auto, "federation": {"method": "local"}})
    with pytest.raises(ConfigError, match="shares nothing"):
        settle_compression(alone, tmp_path, Observer())


def test_nodes_of_a_deployment_are_told_to_name_the_compression():
    config = config_from_mapping({"secure_aggregation": {"compression": "auto", "accuracy_loss": 0.5}})
    roster = Roster.of({name: IdentityKey.generate(system_entropy) for name in "abcd"})
    with pytest.raises(ConfigError, match="name the compression"):
        SumTerms(config, roster, 16, 3)
