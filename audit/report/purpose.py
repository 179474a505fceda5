"""Why the data are used: the declared purpose against what the law asks to be written down."""

from typing import Any

from audit.history import RunHistory

PURPOSE_FIELDS = (
    ("purpose", "GDPR 35(7)(a)"),
    ("controller", "GDPR 30(1)(a)"),
    ("data_protection_officer", "GDPR 30(1)(a)"),
    ("legal_basis", "GDPR 6, 9"),
    ("data_categories", "GDPR 30(1)(c)"),
    ("recipients", "GDPR 30(1)(d)"),
    ("region", "GDPR 30(1)(e)"),
    ("retention", "GDPR 30(1)(f), HIPAA 164.316(b)(2)(i)"),
    ("necessity", "GDPR 35(7)(b)"),
    ("risks", "GDPR 35(7)(c)"),
    ("measures", "GDPR 35(7)(d)"),
    ("access_control", "GDPR 32, HIPAA 164.312(a)"),
    ("audit_controls", "HIPAA 164.312(b)"),
    ("approved_by", "GDPR 35(2)"),
)
"""Fields of the `[purpose]` section of a configuration, and the duty that each serves."""

SIGN_OFF = ("data protection officer", "principal investigator", "information security officer")
"""Who signs a printed report."""


def declared(history: RunHistory, name: str) -> str:
    """Return a declared field, "" where nobody filled it."""
    event = history.last("purpose")
    values: Any = {} if event is None else event.fields["values"]
    return str(values.get(name, ""))


def purpose_section(history: RunHistory) -> dict[str, Any]:
    """Return the declared purpose; a field that nobody filled is an open item."""
    event = history.last("purpose")
    values: Any = {} if event is None else event.fields["values"]
    known = {name for name, _ in PURPOSE_FIELDS}
    fields = [{"name": name, "law": law, "value": declared(history, name)} for name, law in PURPOSE_FIELDS]
    fields += [{"name": name, "law": "-", "value": value} for name, value in values.items() if name not in known]
    missing = [f"{name} ({law})" for name, law in PURPOSE_FIELDS if not declared(history, name)]
    return {"fields": fields, "open_items": missing}
