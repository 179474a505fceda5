"""Canonical JSON: one byte string for one value, so that hashes and signatures mean the value.

Encoding is RFC 8785 (JCS). Decoding is strict: only the bytes that encoding would give are accepted, which rules out
duplicate keys, other spellings of a number, white space and reordered keys.
"""

import json
from collections.abc import Mapping, Sequence
from typing import NoReturn

import rfc8785

JSON = None | bool | int | float | str | Sequence["JSON"] | Mapping[str, "JSON"]
"""A value of JSON; numbers are finite, integers lie within +-(2**53 - 1)."""

_MAX_SAFE = 2**53 - 1


class CanonicalError(ValueError):
    """A value has no canonical form, or bytes are not in canonical form."""


def encode_canonical(value: JSON) -> bytes:
    """Return the RFC 8785 bytes of a value.

    Raises:
        CanonicalError: A number is not finite or too large, a string is not valid Unicode, or a type is not JSON's.
    """
    try:
        return rfc8785.dumps(value)
    except (rfc8785.CanonicalizationError, ValueError, RecursionError) as error:
        raise CanonicalError(str(error) or type(error).__name__) from error


def decode_canonical(encoded: bytes) -> JSON:
    """Return the value of canonical bytes.

    Raises:
        CanonicalError: The bytes are no JSON, or not the canonical bytes of their value.
    """
    try:
        value: JSON = json.loads(encoded.decode("utf-8"), parse_int=_number, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise CanonicalError(f"no JSON ({error})") from error
    if encode_canonical(value) != encoded:
        raise CanonicalError("not in canonical form (RFC 8785)")
    return value


def _number(text: str) -> int | float:
    """RFC 8785 writes large floats without exponent: beyond 2**53 - 1 such digits are a float."""
    if len(text) > 17:
        return float(text)
    value = int(text)
    return value if abs(value) <= _MAX_SAFE else float(text)


def _refuse_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is not a JSON number")
