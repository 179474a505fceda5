"""Who the hospitals of a record are: one set of names, wherever it speaks of them."""

from typing import Any

from audit.errors import EvidenceError
from audit.history import RunHistory


def check_sites(history: RunHistory) -> None:
    """Check that those whose data are described are the roster's, and that no round or release is of others.

    What a report says of each hospital, and of the one that pays most, is said of the sites in `data_described`.

    Raises:
        EvidenceError: They are not; names the event.
    """
    described = history.last("data_described")
    if described is None:
        if history.rounds:
            raise EvidenceError(history.rounds[0].seq, "a round was finished, and no data are described")
        return
    named: Any = described.fields["sites"]
    sites = set(named) - {described.fields.get("held_out_site")}
    announced = history.last("roster")
    hospitals: Any = sites if announced is None else announced.fields["hospitals"]
    if odd := sorted(sites.symmetric_difference(hospitals)):
        where = "data are described" if odd[0] in sites else "the roster names"
        only = "and the roster does not name it" if odd[0] in sites else "and no data of it are described"
        raise EvidenceError(described.seq, f"{odd[0]}: {where}, {only}")
    for record in history.rounds:
        if strangers := sorted(set(record.cohort) - sites):
            raise EvidenceError(record.seq, f"{strangers[0]} was asked, and no data of it are described")
    for event in history.events:
        hospital = event.fields.get("hospital")
        if event.kind in ("privacy_event", "charge") and hospital is not None and hospital not in sites:
            raise EvidenceError(event.seq, f"{event.kind} is of {hospital}, of which no data are described")
