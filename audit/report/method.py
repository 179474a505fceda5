"""What the method that a log names shares, and what stays at a hospital, in words."""

from typing import Any

from audit.check_terms import IN_SHARES
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


def beside_updates(history: RunHistory) -> list[str]:
    """Return what hospitals send beside their updates and in the same message, by the configuration; as nouns."""
    config, protocol = history.last("config"), history.last("protocol_described")
    values: Any = {} if config is None else config.fields["values"]
    facts: Any = {} if protocol is None else protocol.fields.get("values", {})
    in_shares = history.claim is not None and history.claim.fields["mode"] in IN_SHARES
    scored = is_shared(history) and values.get("federation", {}).get("select") == "best-val"
    counted = protocol is not None and not in_shares and facts.get("compression") != "float16-zlib"
    found = ["validation accuracy, by which the kept round is chosen"] if scored else []
    return [*found, "share of clamped coordinates"] if counted else found


def without_noise(history: RunHistory) -> list[str]:
    """Return what left the hospitals of a run without noise, each with who sees it; nothing where nothing left."""
    protocol = history.last("protocol_described")
    if not is_shared(history):
        return []
    masked = protocol is not None and protocol.fields["secure_aggregation"]
    updates = "the sum of the updates of a round" if masked else "every update of every hospital"
    whose = "mean over the hospitals of the" if masked else "every hospital's"
    return [
        f"{updates}: seen by the server; the models that follow from it by every hospital",
        *(f"{whose} {what}: seen by the server, each round" for what in beside_updates(history)),
        "which hospitals take part in a round and which are lost",
    ]


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
