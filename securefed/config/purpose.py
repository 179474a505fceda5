"""The `[purpose]` section: what data-protection law asks to be written down, in the words of who answers for it."""

import dataclasses
import re
from dataclasses import dataclass

from securefed.errors import ConfigError

_LONGEST = 4000
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


@dataclass(frozen=True)
class PurposeConfig:
    """Why the data are used and who answers for it; each at most 4,000 characters on one line.

    What is left empty is an open item of the report. Nothing here changes what is computed; nothing of a patient
    belongs here, as the log keeps it for ever.

    Attributes:
        purpose: What the model is for, and a description of the processing (GDPR Art. 35(7)(a)).
        controller: Who decides on purpose and means (GDPR Art. 30(1)(a)).
        data_protection_officer: Whom to ask (GDPR Art. 30(1)(a)).
        legal_basis: Articles 6 and 9 GDPR, consent, ethics vote.
        data_categories: Which data of whom (GDPR Art. 30(1)(c)).
        recipients: Who gets the shared model (GDPR Art. 30(1)(d)).
        region: Where the data describe people and whose law applies (GDPR Art. 30(1)(e)).
        retention: How long record and model are kept (GDPR Art. 30(1)(f), HIPAA 164.316(b)(2)(i): six years).
        necessity: Why less would not do (GDPR Art. 35(7)(b)).
        risks: For the people in the data (GDPR Art. 35(7)(c)).
        measures: Against those risks (GDPR Art. 35(7)(d)).
        access_control: Who can reach images and keys (GDPR Art. 32, HIPAA 164.312(a)).
        audit_controls: Who examines this record, and how often (HIPAA 164.312(b)).
        approved_by: Who agreed, and when (GDPR Art. 35(2)).
    """

    purpose: str = ""
    controller: str = ""
    data_protection_officer: str = ""
    legal_basis: str = ""
    data_categories: str = ""
    recipients: str = ""
    region: str = ""
    retention: str = ""
    necessity: str = ""
    risks: str = ""
    measures: str = ""
    access_control: str = ""
    audit_controls: str = ""
    approved_by: str = ""

    def __post_init__(self) -> None:
        for name, value in dataclasses.asdict(self).items():
            if len(value) > _LONGEST:
                raise ConfigError(f"purpose.{name}", f"has {len(value)} characters, at most {_LONGEST} are kept")
            if _CONTROL.search(value):
                raise ConfigError(f"purpose.{name}", "holds line ends or control characters; write it on one line")

    def stated(self) -> dict[str, str]:
        """Return the fields that somebody filled."""
        return {name: value for name, value in dataclasses.asdict(self).items() if value.strip()}
