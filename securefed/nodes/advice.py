"""What to do about hospitals that a run which has ended still waits for, by what they said last."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

_ADVICE: Final[Mapping[str, str]] = {
    "evidence": "has signed another history of this run than this folder holds: go on in the folder of that one, or "
    "make a new study; here the record never verifies",
    "disk": "has to free space on its disk; submit again then",
    "fault": "has the cause in its own log; submit again once it is mended",
    "data": "has other data than it approved: it puts them back, or approves the study again; submit again then",
    "ledger": "has to mend its ledger or private log, of which its own log says more; submit again then",
    "study": "has approved another study since: it approves this one again and starts its node; submit again then",
    "": "has to start its node; submit again then, whenever that is",
}
_OTHER: Final = "refuses it ({code}): mend what it names and submit again"


def advice(signatures: Sequence[str], models: Sequence[str], refusals: Mapping[str, str]) -> Iterator[str]:
    """Yield a sentence for each hospital that is waited for.

    Args:
        signatures: Hospitals that owe the record a countersignature.
        models: Hospitals that have not said that they keep the model.
        refusals: {hospital: code of its last refusal}; without one it did not answer.
    """
    lacks = [
        (
            signatures,
            "the record does not verify: it lacks the countersignature of {} over its last sum, or over the end",
        ),
        (models, "{} has not confirmed the kept model, and may be without it"),
    ]
    for names, text in lacks:
        for name in names:
            code = refusals.get(name, "")
            yield f"{text.format(name)}. {name} {_ADVICE.get(code, _OTHER.format(code=code))}"
