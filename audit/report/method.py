"""What the method that a log names shares, and what stays at a hospital, in words."""

from typing import Any

from audit.history import RunHistory

_STAYS = {
    "fedmedclip": "Its images, features and private classifier are in no kind of message.",
    "fedavg-mlp": "Its images and features are in no kind of message; its classifier is part of its updates.",
}
_STAYS_ALWAYS = "Its images and features are in no kind of message."
_MODELS = {"fedavg-mlp": "FAM and classifier"}


def method_of(history: RunHistory) -> str | None:
    """Return the method, None where the log does not say it."""
    config = history.last("config")
    values: Any = {} if config is None else config.fields["values"]
    method = values.get("federation", {}).get("method")
    return method if isinstance(method, str) else None


def is_shared(history: RunHistory) -> bool:
    """Return whether hospitals sent anything, or were about to; some methods train each by itself."""
    return history.last("protocol_described") is not None or bool(history.rounds)


def what_stays(history: RunHistory) -> str:
    """Return what of a hospital is in no message, as a sentence."""
    return _STAYS.get(method_of(history) or "", _STAYS_ALWAYS)


def shared_model(history: RunHistory) -> str:
    """Return what the shared model is."""
    return _MODELS.get(method_of(history) or "", "FAM")


def alone(history: RunHistory) -> str:
    """Return what a hospital did in a run that shares nothing, after its name."""
    if method_of(history) == "zero-shot":
        return "trained nothing: its images were classified by the frozen encoder alone; nothing left it."
    return "trained on its own; nothing left it."


def training_rounds(count: int) -> str:
    """Return a number of rounds that moved the model."""
    return f"{count} round{'' if count == 1 else 's'} of training"


def scoring_rounds(count: int) -> str:
    """Return a number of rounds that only sum scores of the last model."""
    return "one that only scores" if count == 1 else f"{count} that only score"
