"""The language in which the fields of events are declared: small frozen rules that check plain JSON values.

A rule never converts and never constructs anything: it accepts a value or raises FieldError with the place.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from types import MappingProxyType
from typing import Protocol

from audit.canonical import JSON

_MAX_SAFE = 2**53 - 1
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
"""C0, DEL and C1: to many terminals U+009B begins a command, as ESC and [ do."""


class FieldError(ValueError):
    """A value breaks its rule; `where` is its place within the event."""

    def __init__(self, where: str, reason: str) -> None:
        super().__init__(f"{where}: {reason}")
        self.where = where
        self.reason = reason


class Rule(Protocol):
    """Accepts a value or raises FieldError."""

    def check(self, value: JSON, where: str) -> None:
        """Raise FieldError where `value` is not as declared."""

    def describe(self) -> str:
        """Return the rule in the words of the specification."""


@dataclass(frozen=True)
class Text:
    """A string without control characters; `pattern` must match all of it."""

    max_length: int = 200
    pattern: str = ""
    name: str = "text"

    def check(self, value: JSON, where: str) -> None:
        """Check a string."""
        if not isinstance(value, str):
            raise FieldError(where, f"must be text, is {_type(value)}")
        if len(value) > self.max_length:
            raise FieldError(where, f"has {len(value)} characters, at most {self.max_length} are allowed")
        if _CONTROL.search(value):
            raise FieldError(where, "holds control characters")
        if self.pattern and not re.fullmatch(self.pattern, value):
            raise FieldError(where, f"is no {self.name}")

    def describe(self) -> str:
        """Return the rule in words."""
        return self.name if self.pattern else f"{self.name} <= {self.max_length}"


DIGEST = Text(64, "[0-9a-f]{64}", "sha256 hex")
KEY = Text(64, "[0-9a-f]{64}", "Ed25519 key hex")
SIGNATURE = Text(128, "[0-9a-f]{128}", "Ed25519 signature hex")
NAME = Text(200, r"\S(.*\S)?", "name")
PROSE = Text(4000)


@dataclass(frozen=True)
class Moment:
    """A time that was: UTC to the microsecond, in digits of ASCII."""

    text: Text = Text(27, r"[0-9]{4}-[0-9]{2}-[0-9]{2}T([01][0-9]|2[0-3]):[0-9]{2}:[0-9]{2}\.[0-9]{6}Z", "UTC time")

    def check(self, value: JSON, where: str) -> None:
        """Check a time."""
        self.text.check(value, where)
        try:
            datetime.fromisoformat(str(value))
        except ValueError as error:
            raise FieldError(where, f"is in no calendar ({error})") from error

    def describe(self) -> str:
        """Return the rule in words."""
        return self.text.describe()


TIME = Moment()


@dataclass(frozen=True)
class Integer:
    """An integer within [low, high]."""

    low: int = 0
    high: int = _MAX_SAFE

    def check(self, value: JSON, where: str) -> None:
        """Check an integer; true and 1.0 are none."""
        if isinstance(value, bool) or not isinstance(value, int):
            raise FieldError(where, f"must be an integer, is {_type(value)}")
        if not self.low <= value <= self.high:
            raise FieldError(where, f"{value} is outside [{self.low}, {self.high}]")

    def describe(self) -> str:
        """Return the rule in words."""
        return f"integer >= {self.low}" if self.high == _MAX_SAFE else f"integer in [{self.low}, {self.high}]"


@dataclass(frozen=True)
class Real:
    """A finite number within [low, high]; `above` excludes the lower end, `below` the upper."""

    low: float = -math.inf
    high: float = math.inf
    above: bool = False
    below: bool = False

    def check(self, value: JSON, where: str) -> None:
        """Check a number."""
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise FieldError(where, f"must be a number, is {_type(value)}")
        if not math.isfinite(value):
            raise FieldError(where, "must be finite")
        excluded = (self.above and value == self.low) or (self.below and value == self.high)
        if excluded or not self.low <= value <= self.high:
            raise FieldError(where, f"{value} is outside {self._range()}")

    def describe(self) -> str:
        """Return the rule in words."""
        return "number" if self._range() == "(-inf, inf)" else f"number in {self._range()}"

    def _range(self) -> str:
        left = "(" if self.above or self.low == -math.inf else "["
        right = ")" if self.below or self.high == math.inf else "]"
        return f"{left}{self.low:g}, {self.high:g}{right}"


@dataclass(frozen=True)
class Flag:
    """True or false."""

    def check(self, value: JSON, where: str) -> None:
        """Check a truth value."""
        if not isinstance(value, bool):
            raise FieldError(where, f"must be true or false, is {_type(value)}")

    def describe(self) -> str:
        """Return the rule in words."""
        return "true or false"


@dataclass(frozen=True)
class Choice:
    """One of some words."""

    words: tuple[str, ...]

    def check(self, value: JSON, where: str) -> None:
        """Check a word."""
        if value not in self.words:
            raise FieldError(where, f"must be one of {', '.join(self.words)}")

    def describe(self) -> str:
        """Return the rule in words."""
        return " \\| ".join(self.words)


@dataclass(frozen=True)
class Nullable:
    """A value of the rule, or null."""

    rule: Rule

    def check(self, value: JSON, where: str) -> None:
        """Check a value that may be absent."""
        if value is not None:
            self.rule.check(value, where)

    def describe(self) -> str:
        """Return the rule in words."""
        return f"{self.rule.describe()}, or null"


@dataclass(frozen=True)
class ListOf:
    """A list of values of one rule; `unique` forbids repetitions of plain values, `filled` the empty list."""

    rule: Rule
    unique: bool = False
    filled: bool = False

    def check(self, value: JSON, where: str) -> None:
        """Check a list."""
        if isinstance(value, str) or not isinstance(value, Sequence):
            raise FieldError(where, f"must be a list, is {_type(value)}")
        if self.filled and not value:
            raise FieldError(where, "is empty")
        for index, item in enumerate(value):
            self.rule.check(item, f"{where}[{index}]")
        if self.unique and len(set(map(str, value))) != len(value):
            raise FieldError(where, "names something twice")

    def describe(self) -> str:
        """Return the rule in words."""
        return f"{'filled ' if self.filled else ''}list of {self.rule.describe()}"


@dataclass(frozen=True)
class MapOf:
    """An object from any names to values of one rule."""

    rule: Rule
    key: Rule = NAME

    def check(self, value: JSON, where: str) -> None:
        """Check an object with free names."""
        if not isinstance(value, Mapping):
            raise FieldError(where, f"must be an object, is {_type(value)}")
        for name, item in value.items():
            self.key.check(name, f"{where} (name)")
            self.rule.check(item, f"{where}.{name}")

    def describe(self) -> str:
        """Return the rule in words."""
        return f"{{{self.key.describe()}: {self.rule.describe()}}}"


@dataclass(frozen=True)
class Record:
    """An object with exactly these names; those in `optional` may be missing."""

    fields: Mapping[str, Rule]
    optional: Mapping[str, Rule] = field(default_factory=lambda: MappingProxyType({}))

    def check(self, value: JSON, where: str) -> None:
        """Check an object with declared names."""
        if not isinstance(value, Mapping):
            raise FieldError(where, f"must be an object, is {_type(value)}")
        dot = f"{where}." if where else ""
        for name in self.fields:
            if name not in value:
                raise FieldError(f"{dot}{name}", "is missing")
        for name, item in value.items():
            rule = self.fields.get(name) or self.optional.get(name)
            if rule is None:
                raise FieldError(f"{dot}{name}", "is not declared")
            rule.check(item, f"{dot}{name}")

    def describe(self) -> str:
        """Return the rule in words."""
        parts = [f"{name}: {rule.describe()}" for name, rule in self.fields.items()]
        parts += [f"{name}?: {rule.describe()}" for name, rule in self.optional.items()]
        return "{" + ", ".join(parts) + "}"


@dataclass(frozen=True)
class Tagged:
    """An object whose name `tag` decides which record the rest is."""

    tag: str
    records: Mapping[str, Record]

    def check(self, value: JSON, where: str) -> None:
        """Check an object of one of several shapes."""
        if not isinstance(value, Mapping):
            raise FieldError(where, f"must be an object, is {_type(value)}")
        word = value.get(self.tag)
        if not isinstance(word, str) or word not in self.records:
            raise FieldError(f"{where}.{self.tag}", f"must be one of {', '.join(self.records)}")
        self.records[word].check({name: item for name, item in value.items() if name != self.tag}, where)

    def describe(self) -> str:
        """Return the rule in words."""
        return " or ".join(f"{self.tag}={word} {record.describe()}" for word, record in self.records.items())


@dataclass(frozen=True)
class Scalar:
    """A value of a configuration: text, number, truth value, or a list of these."""

    def check(self, value: JSON, where: str) -> None:
        """Check a configuration value."""
        if isinstance(value, bool):
            return
        if isinstance(value, str):
            PROSE.check(value, where)
        elif isinstance(value, int | float):
            Real().check(value, where)
        else:
            ListOf(self).check(value, where)

    def describe(self) -> str:
        """Return the rule in words."""
        return "text, number, true or false, or a list of these"


def _type(value: JSON) -> str:
    return "null" if value is None else type(value).__name__
