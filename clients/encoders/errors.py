"""Why images cannot be turned into features.

EncoderError
    UnknownEncoderError      no encoder has that name
    WeightsMissingError      the weights are not on this machine and could not be fetched
    UnknownClassError        prompts are given for a class that does not exist
    InvalidEncoderError      the encoder's files cannot be used
    FeatureFileError         a file of precomputed features cannot be used
    FeatureCacheError        the feature cache cannot be written
"""

from collections.abc import Iterable


class EncoderError(Exception):
    """Base of all errors of `clients.encoders`; the message is one line with the cause and the next step."""


class UnknownEncoderError(EncoderError):
    """No encoder is called `name`; `matches` are names that are close to it."""

    def __init__(self, name: str, reason: str, matches: Iterable[str] = ()) -> None:
        self.matches = tuple(matches)
        hint = f"; did you mean {', '.join(self.matches)}?" if self.matches else ""
        super().__init__(f"encoder {name!r}: {reason}{hint}")
        self.name = name
        self.reason = reason


class UnknownClassError(EncoderError):
    """Prompts are given for the class `label`, which is none of `classes`."""

    def __init__(self, label: str, classes: Iterable[str]) -> None:
        self.classes = tuple(classes)
        super().__init__(f"prompts are given for {label!r}, which is no class; classes: {', '.join(self.classes)}")
        self.label = label


class WeightsMissingError(EncoderError):
    """The weights of `name` are not on this machine and could not be fetched; `command` fetches them elsewhere."""

    def __init__(self, name: str, reason: str, command: str, cache: str) -> None:
        super().__init__(
            f"encoder {name!r}: its weights are not on this machine and cannot be downloaded ({reason}). "
            f"Either run on a machine with a network: {command} (and copy {cache}, or set HF_HOME to its place); "
            "or put an open_clip folder here and use local-dir:PATH; or use precomputed features:PATH"
        )
        self.name = name
        self.reason = reason
        self.command = command
        self.cache = cache


class InvalidEncoderError(EncoderError):
    """The files of the encoder `name` cannot be used; `reason` says why."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"encoder {name!r}: {reason}")
        self.name = name
        self.reason = reason


class FeatureFileError(EncoderError):
    """The file of features at `path` cannot be used; `reason` says why."""

    def __init__(self, path: object, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path = str(path)
        self.reason = reason


class FeatureCacheError(EncoderError):
    """The feature cache at `path` cannot be written; `reason` is what the system says."""

    def __init__(self, path: object, reason: str) -> None:
        super().__init__(
            f"{path}: the feature cache cannot be written ({reason}); "
            "name another folder with --cache-dir or SECUREFED_CACHE"
        )
        self.path = str(path)
        self.reason = reason
