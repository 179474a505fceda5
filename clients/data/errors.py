"""What can be wrong with a data set so that nothing can be trained on it.

DataError
    SourceNotFoundError      the folder or file is not there
    SourceFormatError        it is there, and is not in a form that can be read
    EmptyDataError           there is no image in it
    OneClassError            there are fewer than two classes, so there is nothing to tell apart
    ColumnError              a column named by an option, or one that is needed, is not in the table
    UnknownSplitError        a split is called something else than train, val or test
    SiteError                a site is named that is not in the data, or that cannot be a site's name
    ConflictError            the table and the folders contradict each other
    BrokenImageError         an image cannot be decoded
    FindingError             `strict` is set and something is wrong that is otherwise a warning
    PartitionError           a data set cannot be dealt to that many clients
    MissingDependencyError   an optional extra is not installed
"""

from collections.abc import Iterable
from pathlib import Path

from clients.data.options import column_setting


class DataError(Exception):
    """Base of all errors of `clients.data`; the message is one line with the cause and the next step."""


class SourceNotFoundError(DataError):
    """The source of the data is not there; `path` is where it was looked for."""

    def __init__(self, path: object) -> None:
        super().__init__(
            f"{path}: no such file or folder{from_here(str(path).removeprefix('features:'))}; check --data"
        )
        self.path = str(path)


def from_here(path: str | Path) -> str:
    """Return where a relative path was looked for, and why that may be wrong; "" for an absolute one."""
    if Path(path).expanduser().is_absolute():
        return ""
    return f" in {Path.cwd()} (a run is evaluated and resumed from the folder in which it was started)"


class SourceFormatError(DataError):
    """The source at `path` cannot be read as what it seems to be; `reason` says why and what is expected."""

    def __init__(self, path: object, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path = str(path)
        self.reason = reason


class EmptyDataError(DataError):
    """No image was found at `path`, or none of a site.

    `detail` is the commonest reason and the path of one image, or "": for the hospital's own screen, and in no message.
    """

    def __init__(self, path: object, reason: str, detail: str = "") -> None:
        super().__init__(f"{path}: {reason}")
        self.path = str(path)
        self.reason = reason
        self.detail = detail

    @property
    def in_full(self) -> str:
        """The message and the detail."""
        return f"{self} ({self.detail})" if self.detail else str(self)


class OneClassError(DataError):
    """The data have the one class `label`; at least two are needed."""

    def __init__(self, name: str, label: str) -> None:
        super().__init__(
            f"{name}: all images are of the one class {label!r}; at least two classes are needed "
            "(folders are <site>/<class>/<image>; is a level missing?)"
        )
        self.name = name
        self.label = label


class ColumnError(DataError):
    """The table at `path` lacks `column`; `option` says where another is named, and `present` are its columns."""

    def __init__(self, path: object, column: str, option: str, present: Iterable[str]) -> None:
        self.present = tuple(present)
        here = f"columns here: {', '.join(self.present)}" if self.present else "there is no such table"
        super().__init__(f"{path}: there is no column {column!r}; name it by {option} ({here})")
        self.path = str(path)
        self.column = column
        self.option = option


class UnknownSplitError(DataError):
    """Splits are called otherwise than train, val or test; `counts` has each unknown name and its rows."""

    def __init__(self, path: object, counts: dict[str, int]) -> None:
        named = ", ".join(f"{name!r} ({count} rows)" for name, count in sorted(counts.items()))
        super().__init__(
            f"{path}: unknown split {named}; use train, val or test, or name another column by "
            f"{column_setting('split')}"
        )
        self.path = str(path)
        self.counts = dict(counts)


class SiteError(DataError):
    """The site `site` cannot be used; `reason` says why."""

    def __init__(self, site: str, reason: str) -> None:
        super().__init__(f"site {site!r}: {reason}")
        self.site = site
        self.reason = reason


class ConflictError(DataError):
    """Two statements about the same image contradict each other; `count` images, `examples` of them."""

    def __init__(self, path: object, reason: str, examples: Iterable[str], count: int) -> None:
        self.examples = tuple(examples)
        super().__init__(f"{path}: {reason} ({count} images, for example {', '.join(self.examples)})")
        self.path = str(path)
        self.reason = reason
        self.count = count


class BrokenImageError(DataError):
    """The image `path` cannot be decoded; `reason` is what the decoder says."""

    def __init__(self, path: object, reason: str) -> None:
        super().__init__(f"{path}: the image cannot be read ({reason}); repair or remove it")
        self.path = str(path)
        self.reason = reason


class FindingError(DataError):
    """`strict` is set and the finding `kind` concerns `count` items."""

    def __init__(self, kind: str, count: int, message: str) -> None:
        super().__init__(f"{message} (refused by --strict)")
        self.kind = kind
        self.count = count


class PartitionError(DataError):
    """A data set cannot be dealt to `clients` clients; `reason` says why."""

    def __init__(self, clients: int, reason: str) -> None:
        super().__init__(f"cannot partition over {clients} clients: {reason}")
        self.clients = clients
        self.reason = reason


class MissingDependencyError(DataError):
    """`feature` needs the optional extra `extra`, which is not installed."""

    def __init__(self, feature: str, extra: str) -> None:
        super().__init__(f"{feature} need the extra {extra!r}: pip install 'securefed[{extra}]'")
        self.feature = feature
        self.extra = extra
