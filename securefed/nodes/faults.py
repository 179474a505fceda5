"""What a site's own log says of a fault: its class and where it broke, not a word of what the exception quotes.

Exceptions of numerical code and of file formats quote values and names of files, and a log is read by more people than
the data are. The trace goes to the log at debug level (docs/deployment.md, "When something happens").
"""

import traceback
from typing import Final

_OURS: Final = frozenset(("securefed", "clients", "protocols", "audit"))


def in_one_line(error: BaseException) -> str:
    """Return an error's class and the innermost line of this software that it came from, as `ValueError at a.b:12`."""
    name, place = type(error).__name__, ""
    for frame, line in traceback.walk_tb(error.__traceback__):
        module = str(frame.f_globals.get("__name__", ""))
        if module.partition(".")[0] in _OURS:
            place = f" at {module}:{line}"
    return name + place
