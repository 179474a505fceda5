"""JSON Schema (draft 2020-12) of a form, for readers that are not this package."""

from typing import Any

from audit.rules import Choice, Flag, Integer, ListOf, MapOf, Moment, Nullable, Real, Record, Rule, Scalar, Tagged, Text


def json_schema(rule: Rule, title: str) -> dict[str, Any]:
    """Return the schema of a rule as a document of its own."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": title, **_schema(rule)}


def _schema(rule: Rule) -> dict[str, Any]:
    match rule:
        case Text():
            pattern = {"pattern": f"^(?:{rule.pattern})$"} if rule.pattern else {}
            return {"type": "string", "maxLength": rule.max_length, **pattern}
        case Moment():
            return _schema(rule.text)
        case Integer():
            return {"type": "integer", "minimum": rule.low, "maximum": rule.high}
        case Real():
            return {"type": "number", **_bounds(rule)}
        case Flag():
            return {"type": "boolean"}
        case Choice():
            return {"enum": list(rule.words)}
        case Nullable():
            return {"anyOf": [_schema(rule.rule), {"type": "null"}]}
        case ListOf():
            least = {"minItems": 1} if rule.filled else {}
            return {"type": "array", "items": _schema(rule.rule), **least}
        case MapOf():
            return {"type": "object", "additionalProperties": _schema(rule.rule)}
        case Record():
            return _object(rule, {})
        case Tagged():
            return {"oneOf": [_object(record, {rule.tag: word}) for word, record in rule.records.items()]}
        case Scalar():
            plain = [{"type": name} for name in ("string", "number", "boolean")]
            return {"anyOf": [*plain, {"type": "array"}]}
        case _:
            raise TypeError(f"{type(rule).__name__} has no JSON Schema")


def _bounds(rule: Real) -> dict[str, float]:
    found: dict[str, float] = {}
    if rule.low != float("-inf"):
        found["exclusiveMinimum" if rule.above else "minimum"] = rule.low
    if rule.high != float("inf"):
        found["exclusiveMaximum" if rule.below else "maximum"] = rule.high
    return found


def _object(record: Record, constants: dict[str, str]) -> dict[str, Any]:
    properties = {name: {"const": word} for name, word in constants.items()}
    properties |= {name: _schema(field) for name, field in (*record.fields.items(), *record.optional.items())}
    return {
        "type": "object",
        "properties": properties,
        "required": [*constants, *record.fields],
        "additionalProperties": False,
    }
