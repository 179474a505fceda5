"""Settings: the published values, ranges, and errors that name the field."""

import dataclasses

import pytest

from clients.method.settings import SettingsError, TrainingSettings


def test_the_paper_profile_is_as_published():
    paper = TrainingSettings.paper()
    assert (paper.fam_learning_rate, paper.mlp_learning_rate, paper.learning_rate_decay) == (5e-4, 1e-4, 0.97)
    assert (paper.adam_beta1, paper.adam_beta2, paper.adam_epsilon, paper.weight_decay) == (0.9, 0.98, 1e-6, 0.02)
    assert (paper.batch_size, paper.local_epochs) == (32, 1)
    assert (paper.fam_form, paper.fam_loss) == ("published", "contrastive")
    assert (paper.distillation, paper.distillation_weight) == ("class-wise", "adaptive")
    assert (paper.distillation_strength, paper.distillation_temperature) == (0.04, 2.0)
    assert (paper.mlp_layers, paper.mlp_width, paper.mlp_norm, paper.mlp_dropout) == (3, 512, "batch", 0.0)
    assert (paper.mlp_input, paper.mlp_to_fam, paper.mask_bias, paper.ensemble) == ("adapted", True, True, "entropy")
    assert paper.class_balance == paper.label_smoothing == 0.0


def test_default_is_the_constructor_without_arguments():
    assert TrainingSettings.default() == TrainingSettings()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("batch_size", 0),
        ("local_epochs", 0),
        ("fam_learning_rate", 0.0),
        ("mlp_learning_rate", float("nan")),
        ("mlp_learning_rate", float("inf")),
        ("learning_rate_decay", 1.01),
        ("learning_rate_decay", 0.0),
        ("adam_beta1", 1.0),
        ("adam_beta2", -0.1),
        ("adam_epsilon", -1e-6),
        ("weight_decay", -1.0),
        ("weight_decay", float("nan")),
        ("weight_decay", float("inf")),
        ("fam_form", "plain"),
        ("fam_loss", "triplet"),
        ("label_smoothing", 1.0),
        ("class_balance", 1.5),
        ("distillation", "batch"),
        ("distillation_strength", -0.1),
        ("distillation_strength", float("inf")),
        ("distillation_weight", "third"),
        ("distillation_temperature", 0.0),
        ("mlp_layers", -1),
        ("mlp_width", -1),
        ("mlp_width", 1_000_000_000),
        ("fam_width", 1_000_000_000),
        ("mlp_norm", "instance"),
        ("mlp_dropout", 1.0),
        ("mlp_input", "text"),
        ("threshold_window", 0.0),
        ("reset_keep_ratio", 1.0),
        ("ensemble", "vote"),
        ("fam_learning_rate", 1e31),
        ("mlp_learning_rate", 1e-31),
        ("fam_logit_scale", 1e39),
        ("fam_logit_scale", -1.0),
        ("distillation_strength", 1e39),
        ("distillation_temperature", 1e-308),
        ("weight_decay", 1e308),
        ("weight_decay", 1e-320),
        ("fam_input_rms", 1e16),
        ("mlp_input_rms", 1e300),
        ("threshold_window", 1e-320),
        ("adam_epsilon", 5e-324),
    ],
)
def test_a_value_out_of_range_is_refused_by_name(field, value):
    with pytest.raises(SettingsError, match=field) as caught:
        dataclasses.replace(TrainingSettings(), **{field: value})
    assert caught.value.field == field


def test_ranges_end_where_float32_still_computes():
    """What is divided by what counts too: a strength and a temperature within their ranges can be beyond them."""
    for field in ("fam_learning_rate", "weight_decay", "adam_epsilon", "threshold_window", "distillation_temperature"):
        for value in (1e-30, 1e30):
            assert getattr(dataclasses.replace(TrainingSettings(), **{field: value}), field) == value
    for field in ("weight_decay", "distillation_strength", "fam_logit_scale", "fam_input_rms", "mlp_input_rms"):
        assert getattr(dataclasses.replace(TrainingSettings(), **{field: 0.0}), field) == 0
    with pytest.raises(SettingsError, match=r"distillation_strength must be at most 1e\+30 times") as caught:
        TrainingSettings(distillation_strength=1e20, distillation_temperature=1e-20)
    assert caught.value.field == "distillation_strength"
