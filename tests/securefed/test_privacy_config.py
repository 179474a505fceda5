"""The [privacy] section: what it refuses, and what it changes for the rest of the configuration."""

import pytest

from securefed.commands.options import RUN_FLAGS, resolve_config
from securefed.config import config_from_mapping, config_to_mapping, load_config, profile_name, write_config
from securefed.errors import ConfigError


def test_privacy_is_off_and_changes_nothing():
    config = load_config()
    assert config.privacy.mode == "off"
    assert not config.privacy.enabled
    assert config.federation.select == "best-val"


@pytest.mark.parametrize(
    ("given", "key"),
    [
        ({"mode": "central", "epsilon": 1}, "mode"),
        ({"mode": "local"}, "epsilon"),
        ({"mode": "off", "epsilon": 8}, "epsilon"),
        ({"clip_norm": 0.5}, "clip_norm"),
        ({"sampling_rate": 0.5}, "sampling_rate"),
        ({"max_colluders": 1}, "max_colluders"),
        ({"mode": "off", "unit": "patient"}, "unit"),
        ({"mode": "local", "epsilon": 8, "max_colluders": 1}, "max_colluders"),
        ({"mode": "local", "epsilon": 8, "mechanism": "discrete-gaussian"}, "mechanism"),
        ({"mode": "local", "epsilon": 8, "spare_rounds": 2}, "spare_rounds"),
        ({"mode": "local", "epsilon": 8, "ring_bits": 20}, "ring_bits"),
        ({"mode": "local", "epsilon": -1}, "epsilon"),
        ({"mode": "local", "epsilon": float("inf")}, "epsilon"),
        ({"mode": "local", "epsilon": float("nan")}, "epsilon"),
        ({"mode": "local", "epsilon": 8, "delta": 0}, "delta"),
        ({"mode": "local", "epsilon": 8, "delta": 1}, "delta"),
        ({"mode": "local", "epsilon": 8, "delta": 0.01}, "delta"),
        ({"mode": "local", "epsilon": 8, "delta": 1e-300}, "delta"),
        ({"mode": "local", "epsilon": 1e300}, "epsilon"),
        ({"mode": "local", "noise_multiplier": 1e300}, "noise_multiplier"),
        ({"mode": "local", "noise_multiplier": 1e-300}, "noise_multiplier"),
        ({"mode": "local", "epsilon": 8, "sampling_rate": 1e-300}, "sampling_rate"),
        ({"mode": "local", "epsilon": 8, "steps": 1_000_000_000}, "steps"),
        ({"mode": "local", "epsilon": 8, "sampling_rate": 0}, "sampling_rate"),
        ({"mode": "local", "epsilon": 8, "sampling_rate": 1.01}, "sampling_rate"),
        ({"mode": "local", "epsilon": 8, "clip_norm": 0}, "clip_norm"),
        ({"mode": "local", "epsilon": 8, "normaliser": 0}, "normaliser"),
        ({"mode": "local", "epsilon": 8, "clip_norm": 1, "fam_clip_norm": 1}, "mlp_clip_norm"),
        ({"mode": "local", "epsilon": 8, "clip_norm": 1, "mlp_clip_norm": 1}, "fam_clip_norm"),
        ({"mode": "local", "epsilon": 8, "clip_norm": 0.5, "fam_clip_norm": 1, "mlp_clip_norm": 1}, "clip_norm"),
        ({"mode": "local", "epsilon": 8, "clip_norm": 1, "fam_noise_share": 0.25}, "fam_noise_share"),
        ({"mode": "distributed", "epsilon": 8, "fam_noise_share": 0.25}, "fam_noise_share"),
        ({"mode": "hospital", "epsilon": 8, "sampling_rate": 0.5}, "sampling_rate"),
        ({"mode": "hospital", "epsilon": 8, "normaliser": 7}, "normaliser"),
        ({"mode": "hospital", "epsilon": 8, "coupling": "one-way"}, "coupling"),
        ({"mode": "local", "epsilon": 8, "clip_norm": 1e-300}, "clip_norm"),
        ({"mode": "local", "epsilon": 8, "clip_norm": float("nan")}, "clip_norm"),
        ({"mode": "local", "epsilon": 8, "fam_clip_norm": 1e300, "mlp_clip_norm": 1}, "fam_clip_norm"),
        ({"mode": "local", "epsilon": 8, "fam_clip_norm": 1, "mlp_clip_norm": -1}, "mlp_clip_norm"),
        ({"mode": "distributed", "epsilon": 8, "normaliser": 1e300}, "normaliser"),
        ({"mode": "local", "epsilon": 8, "steps": 0}, "steps"),
        ({"mode": "local", "epsilon": 8, "unit": "hospital"}, "unit"),
        ({"mode": "hospital", "epsilon": 8, "unit": "image"}, "unit"),
        ({"mode": "local", "epsilon": 8, "noise": "numpy"}, "noise"),
    ],
)
def test_what_cannot_be_is_refused_with_its_key(given, key):
    with pytest.raises(ConfigError) as refused:
        config_from_mapping({"privacy": given})
    assert refused.value.key == f"privacy.{key}"


def test_with_privacy_the_last_round_is_kept_unless_somebody_says_otherwise():
    assert config_from_mapping({"privacy": {"mode": "local", "epsilon": 8}}).federation.select == "last"
    tree = {"privacy": {"mode": "local", "epsilon": 8}, "federation": {"select": "best-val"}}
    assert config_from_mapping(tree).federation.select == "best-val"


def test_the_unit_of_the_mode_hospital_is_the_hospital():
    assert config_from_mapping({"privacy": {"mode": "hospital", "epsilon": 8}}).privacy.unit == "hospital"


def test_the_resolved_configuration_reads_back_the_same():
    config = config_from_mapping({"privacy": {"mode": "distributed", "epsilon": 2, "max_colluders": 1}})
    assert config_from_mapping(config_to_mapping(config)) == config


def test_a_clip_norm_of_either_kind_is_stronger_than_the_other_kind_in_a_file(tmp_path):
    path = tmp_path / "config.toml"
    private = {"dp": "local", "epsilon": 8.0}
    write_config(resolve_config(private, RUN_FLAGS, None, ()), path)
    together = resolve_config({"clip_norm": 0.01}, RUN_FLAGS, path, ())
    assert together == resolve_config({**private, "clip_norm": 0.01}, RUN_FLAGS, None, ())
    assert not together.privacy.clips_by_group
    write_config(together, path)
    norms = ("privacy.fam_clip_norm=2", "privacy.mlp_clip_norm=3")
    assert resolve_config({}, RUN_FLAGS, path, norms).privacy == resolve_config(private, RUN_FLAGS, None, norms).privacy
    with pytest.raises(ConfigError, match=r"privacy\.clip_norm: has no meaning beside fam_clip_norm"):
        resolve_config({"clip_norm": 0.01}, RUN_FLAGS, path, norms)


def test_clip_norms_of_each_part_of_0_clip_both_together(tmp_path):
    none = ("privacy.fam_clip_norm=0", "privacy.mlp_clip_norm=0")
    found = resolve_config({"dp": "local", "epsilon": 8.0}, RUN_FLAGS, None, none).privacy
    assert not found.clips_by_group
    path = tmp_path / "own.toml"
    path.write_text('[privacy]\nmode = "local"\nepsilon = 8.0\nclip_norm = 2.0\n', encoding="utf-8")
    assert resolve_config({}, RUN_FLAGS, path, none).privacy.clip_norm == 2
    with pytest.raises(ConfigError, match="fam_noise_share: has no meaning"):
        resolve_config({}, RUN_FLAGS, path, ("privacy.fam_noise_share=0.3",))


def test_a_seed_on_the_command_line_makes_the_noise_reproducible_unless_somebody_insists():
    private = {"dp": "local", "epsilon": 8.0}
    assert resolve_config(private, RUN_FLAGS, None, ()).privacy.noise == "system"
    assert resolve_config({**private, "seed": 1}, RUN_FLAGS, None, ()).privacy.noise == "seeded"
    insisted = resolve_config({**private, "seed": 1}, RUN_FLAGS, None, ("privacy.noise=system",))
    assert (insisted.privacy.noise, insisted.federation.seed) == ("system", 1)
    assert resolve_config({"seed": 1}, RUN_FLAGS, None, ()).privacy.noise == "system"


def test_the_profile_of_a_private_run_is_private_and_a_clip_norm_is_for_both_parts_together():
    local = config_from_mapping({"privacy": {"mode": "local", "epsilon": 8.0}})
    assert profile_name(local.training) == "private"
    assert local.privacy.clips_by_group
    flat = config_from_mapping({"privacy": {"mode": "local", "epsilon": 8.0, "clip_norm": 0.5}})
    assert not flat.privacy.clips_by_group
    one_way = config_from_mapping({"privacy": {"mode": "local", "epsilon": 8.0, "coupling": "one-way"}})
    assert profile_name(one_way.training) == "private-one-way"
    named = config_from_mapping({"privacy": {"mode": "local", "epsilon": 8.0}, "training": {"profile": "paper"}})
    assert profile_name(named.training) == "paper"
