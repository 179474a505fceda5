"""Hyperparameters of local training: one frozen dataclass, checked when it is made."""

from dataclasses import dataclass, replace

METHODS = ("fedmedclip", "fedclip", "local", "zero-shot", "linear-probe", "fedavg-mlp")
"""Methods by name, as `Hospital` takes them."""

AGGREGATED_METHODS = ("fedmedclip", "fedclip", "fedavg-mlp")
"""Methods in which an update leaves the hospital."""

FAM_FORMS = ("published", "residual")
FAM_LOSSES = ("contrastive", "class-prompt")
DISTILLATIONS = ("off", "class-wise", "per-example")
DISTILLATION_WEIGHTS = ("adaptive", "half")
MLP_NORMS = ("none", "layer", "group", "batch")
MLP_INPUTS = ("adapted", "image", "both")
ENSEMBLES = ("entropy", "pool")


WIDEST = 65_536
"""Width of a hidden layer at most: some thirty times that of the widest encoders, and still of a size that fits."""

MOST, MOST_SQUARED = 1e30, 1e15
"""Of settings that float32 computes with, and of those whose squares it computes with: the least is one over it."""


class SettingsError(ValueError):
    """A training setting is out of range.

    Attributes:
        field: Name of the setting.
    """

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(f"{field} {reason}")
        self.field = field


@dataclass(frozen=True)
class TrainingSettings:
    """How a hospital trains in a round; the values here are those of `default()`.

    Paper: Wu and Chaddad, "Federated CLIP for Resource-Efficient Heterogeneous Medical Image Classification", AAAI
        2026. Every departure from it, with what taking it back by itself did, is in docs/method.md.

    Attributes:
        batch_size: Images a step.
        local_epochs: Passes over the hospital's training images a round.
        fam_learning_rate: Learning rate of the FAM in the first round.
        mlp_learning_rate: Learning rate of the private MLP in the first round.
        learning_rate_decay: Factor on both after each round.
        adam_beta1: AdamW's decay of the mean gradient; in private training the momentum of SGD.
        adam_beta2: AdamW's decay of the squared gradient.
        adam_epsilon: AdamW's epsilon.
        weight_decay: AdamW's decoupled weight decay.
        fam_form: `published` (att * I) or `residual` (I + D * att * I); both are L2-normalised afterwards.
        fam_width: Width of the FAM's hidden layer; 0 stands for the width of the embedding (as published).
        fam_input_rms: Root mean square of the entries that the FAM's first layer sees; 0 leaves features of unit length
            as they are (as published).
        fam_logit_scale: Factor on the FAM's cosines; 0 stands for the encoder's (as published).
        fam_loss: `contrastive` (in the batch, as published) or `class-prompt` (cross entropy against the class
            prompts).
        label_smoothing: Smoothing of the targets of the cross entropies, in [0, 1): of the MLP, and of the FAM with
            `class-prompt`.
        class_balance: Exponent t of the loss weights n_c ** -t of the classes at the hospital; 0 weighs all images
            alike, 1 all classes.
        prior_adjustment: Factor in [0, 1] on the hospital's log class frequencies, which are added to the FAM's
            logits in training and in prediction: the shared module then learns what tells classes apart and nobody's
            case mix. The loss `contrastive` has no class logits and goes without: they are in distillation and
            prediction alone then.
        feature_dropout: Share of the entries of the encoder's features that are dropped in training (before they are
            brought back to unit length), in [0, 1).
        distillation: `off`, `class-wise` (softmax over the batch, as published) or `per-example` (softmax over the
            classes).
        distillation_strength: Factor lambda of the distillation loss.
        distillation_weight: `adaptive` (by entropy) or `half`.
        distillation_temperature: Temperature of both softmaxes of the distillation.
        mlp_to_fam: Whether the gradient of the MLP's cross entropy reaches the FAM.
        mlp_layers: Hidden layers of the MLP; 0 is a linear head.
        mlp_width: Width of the hidden layers; 0 stands for the width of the embedding.
        mlp_norm: Normalisation behind the MLP's hidden layers: `none`, `layer`, `group` or `batch` (as published).
        mlp_dropout: Dropout behind the MLP's hidden layers, in [0, 1).
        mlp_input: What the MLP sees: `adapted` (the FAM's output, as published), `image` (the encoder's feature) or
            `both`.
        mlp_input_rms: Root mean square of the MLP's input entries: features of unit length are multiplied by this and
            by the root of their width; 0 leaves them as they are (as published).
        learn_thresholds: Whether masked layers learn which rows to keep (as published); otherwise all rows are kept and
            the thresholds are no parameters.
        threshold_window: Width of the sigmoid whose slope stands in for the derivative of the keep step; in units of
            a mean absolute weight.
        mask_bias: Whether a row that is switched off loses its bias too (paper) or keeps it (reference code).
        reset_keep_ratio: A masked layer that keeps at most this share of its rows gets its thresholds set back to 0.
        ensemble: `entropy` (published weights) or `pool` (logarithmic pool, fitted on the hospital's validation
            images).
    """

    batch_size: int = 32
    local_epochs: int = 1
    fam_learning_rate: float = 5e-4
    mlp_learning_rate: float = 3e-4
    learning_rate_decay: float = 0.93
    adam_beta1: float = 0.9
    adam_beta2: float = 0.98
    adam_epsilon: float = 1e-6
    weight_decay: float = 0.02
    fam_form: str = "residual"
    fam_width: int = 0
    fam_input_rms: float = 0.0
    fam_logit_scale: float = 0.0
    fam_loss: str = "class-prompt"
    label_smoothing: float = 0.0
    class_balance: float = 0.0
    prior_adjustment: float = 1.0
    feature_dropout: float = 0.3
    distillation: str = "per-example"
    distillation_strength: float = 0.04
    distillation_weight: str = "adaptive"
    distillation_temperature: float = 2.0
    mlp_to_fam: bool = True
    mlp_layers: int = 1
    mlp_width: int = 0
    mlp_norm: str = "layer"
    mlp_dropout: float = 0.5
    mlp_input: str = "both"
    mlp_input_rms: float = 1.0
    learn_thresholds: bool = True
    threshold_window: float = 0.01
    mask_bias: bool = True
    reset_keep_ratio: float = 0.01
    ensemble: str = "pool"

    def __post_init__(self) -> None:
        self._at_least("batch_size", 1)
        self._at_least("local_epochs", 1)
        self._computable("fam_learning_rate", "mlp_learning_rate", "adam_epsilon")
        self._computable("distillation_temperature", "threshold_window")
        self._within("learning_rate_decay", above=0.0, to=1.0)
        self._below_one(
            "adam_beta1", "adam_beta2", "label_smoothing", "feature_dropout", "mlp_dropout", "reset_keep_ratio"
        )
        self._computable("weight_decay", "distillation_strength", "fam_logit_scale", or_zero=True)
        self._computable("fam_input_rms", "mlp_input_rms", most=MOST_SQUARED, or_zero=True)
        if self.distillation_strength > MOST * self.distillation_temperature:
            raise SettingsError("distillation_strength", f"must be at most {MOST:g} times distillation_temperature")
        self._at_least("mlp_layers", 0)
        for field in ("fam_width", "mlp_width"):
            self._within(field, above=None, to=WIDEST)
        self._within("class_balance", above=None, to=1.0)
        self._within("prior_adjustment", above=None, to=1.0)
        self._one_of("fam_form", FAM_FORMS)
        self._one_of("fam_loss", FAM_LOSSES)
        self._one_of("distillation", DISTILLATIONS)
        self._one_of("distillation_weight", DISTILLATION_WEIGHTS)
        self._one_of("mlp_norm", MLP_NORMS)
        self._one_of("mlp_input", MLP_INPUTS)
        self._one_of("ensemble", ENSEMBLES)

    @classmethod
    def default(cls) -> "TrainingSettings":
        """Return what a user should use: the departures of docs/method.md, chosen on validation data."""
        return cls()

    @classmethod
    def paper(cls) -> "TrainingSettings":
        """Return hyperparameters and losses as published (of its learning rates, FAM 5e-4 and MLP 1e-4)."""
        return cls(
            fam_learning_rate=5e-4,
            mlp_learning_rate=1e-4,
            learning_rate_decay=0.97,
            fam_form="published",
            fam_loss="contrastive",
            prior_adjustment=0.0,
            feature_dropout=0.0,
            distillation="class-wise",
            mlp_layers=3,
            mlp_width=512,
            mlp_norm="batch",
            mlp_dropout=0.0,
            mlp_input="adapted",
            mlp_input_rms=0.0,
            ensemble="entropy",
        )

    @classmethod
    def private(cls) -> "TrainingSettings":
        """Return what learns under noise on few images: a narrow FAM, a linear head, no thresholds."""
        return cls(
            fam_learning_rate=0.05,
            mlp_learning_rate=0.04,
            learning_rate_decay=0.97,
            adam_beta1=0.9,
            weight_decay=0.0,
            fam_form="published",
            fam_width=64,
            fam_input_rms=1.0,
            fam_logit_scale=10.0,
            prior_adjustment=0.0,
            feature_dropout=0.0,
            distillation_strength=0.1,
            mlp_layers=0,
            mlp_dropout=0.0,
            mlp_input="image",
            learn_thresholds=False,
            ensemble="entropy",
        )

    @classmethod
    def private_one_way(cls) -> "TrainingSettings":
        """Return the FAM of `private` beside an MLP that trains without noise and teaches it nothing."""
        return replace(
            cls.private(),
            mlp_learning_rate=3e-4,
            distillation="off",
            mlp_to_fam=False,
            mlp_layers=1,
            mlp_dropout=0.5,
        )

    def _at_least(self, field: str, least: float) -> None:
        if not least <= getattr(self, field) < float("inf"):
            raise SettingsError(field, f"must be at least {least} and finite, is {getattr(self, field)}")

    def _computable(self, *fields: str, most: float = MOST, or_zero: bool = False) -> None:
        for field in fields:
            value = getattr(self, field)
            if not (1 / most <= value <= most or (or_zero and value == 0)):
                raise SettingsError(field, f"must be {'0 or ' if or_zero else ''}{1 / most:g} to {most:g}, is {value}")

    def _below_one(self, *fields: str) -> None:
        for field in fields:
            if not 0 <= getattr(self, field) < 1:
                raise SettingsError(field, f"must be in [0, 1), is {getattr(self, field)}")

    def _within(self, field: str, above: float | None, to: float) -> None:
        value = getattr(self, field)
        if not (value >= 0 if above is None else above < value) or not value <= to:
            raise SettingsError(field, f"must be in {'[0' if above is None else f'({above}'}, {to}], is {value}")

    def _one_of(self, field: str, names: tuple[str, ...]) -> None:
        if getattr(self, field) not in names:
            raise SettingsError(field, f"is {getattr(self, field)!r}; use one of {', '.join(names)}")
