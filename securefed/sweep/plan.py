"""From a file to cells: every combination of the values in its [grid], each a checked configuration of its own."""

import copy
import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from securefed.config import RunConfig, config_digest, config_from_mapping, overlay, read_toml
from securefed.errors import ConfigError
from securefed.privacy.rules import check_privacy
from securefed.privacy.spending import with_absolute_ledger

GRID = "grid"
MOST_CELLS = 100_000


@dataclass(frozen=True)
class Cell:
    """One run of a sweep.

    Attributes:
        values: {dotted key: value} of the grid.
        config: Its configuration.
        digest: Digest of the configuration as written (hex); names the cell's folder, wherever the sweep is started.
    """

    values: Mapping[str, Any]
    config: RunConfig
    digest: str

    @property
    def name(self) -> str:
        """Return the name of the cell's folder."""
        return self.digest[:16]

    @property
    def digests(self) -> tuple[str, ...]:
        """Return the digests that the record of its run may state: runs name their ledger by its absolute path."""
        return self.digest, config_digest(with_absolute_ledger(self.config))

    def __str__(self) -> str:
        """Return the values in the order of the grid."""
        return ", ".join(f"{key}={value}" for key, value in self.values.items())


@dataclass(frozen=True)
class SweepPlan:
    """What a sweep runs.

    Attributes:
        keys: Dotted keys of the grid.
        cells: All combinations, the last key varying fastest; those that configure the same run are one cell.
    """

    keys: tuple[str, ...]
    cells: tuple[Cell, ...]


def read_plan(path: Path, overrides: Mapping[str, Any] | None = None) -> SweepPlan:
    """Read a sweep file: the sections of a run's configuration, and [grid] with a list of values a dotted key.

    Args:
        path: TOML file.
        overrides: Dotted keys to values that replace those of the file in every cell.

    Raises:
        ConfigError: The file cannot be read, the grid is not one, a cell is no valid configuration, or breaks a rule of
            docs/privacy.md.
    """
    tree = read_toml(path, "sweep")
    axes = _axes(tree.pop(GRID, None), overrides or {})
    count = 1
    for _, values in axes:
        count *= len(values)
    if count > MOST_CELLS:
        raise ConfigError(GRID, f"has {count:,} combinations, more than {MOST_CELLS:,}; divide it over several files")
    keys = tuple(key for key, _ in axes)
    cells: dict[str, Cell] = {}
    for combination in itertools.product(*(values for _, values in axes)):
        chosen = dict(zip(keys, combination, strict=True))
        cell = _cell(tree, {**(overrides or {}), **chosen}, chosen)
        cells.setdefault(cell.digest, cell)
    return SweepPlan(keys, tuple(cells.values()))


def _axes(grid: object, overrides: Mapping[str, Any]) -> list[tuple[str, list[Any]]]:
    if not isinstance(grid, Mapping) or not grid:
        raise ConfigError(GRID, 'is missing; write [grid] and lines like "federation.seed" = [0, 1, 2]')
    axes = _flat(grid, "")
    keys = [key for key, _ in axes]
    for key, values in axes:
        if keys.count(key) > 1:
            raise ConfigError(f"{GRID}.{key}", "is there twice, with quotes and without; write all values in one line")
        if values == []:
            raise ConfigError(f"{GRID}.{key}", "is an empty list; write at least one value, or take the line out")
        if not isinstance(values, list):
            raise ConfigError(f"{GRID}.{key}", f"{values!r} is no list of values; write [{values!r}]")
        if key in overrides:
            raise ConfigError("--set", f"{key} is varied by the grid; take it out of one of them")
        if "." not in key:
            raise ConfigError(f"{GRID}.{key}", 'write SECTION.KEY, for example "federation.seed"')
    return axes


def _flat(node: Mapping[str, Any], prefix: str) -> list[tuple[str, Any]]:
    """The leaves of nested tables: TOML reads an unquoted `federation.seed` as a table in a table."""
    leaves: list[tuple[str, Any]] = []
    for name, value in node.items():
        key = f"{prefix}{name}"
        leaves += _flat(value, f"{key}.") if isinstance(value, Mapping) else [(key, value)]
    return leaves


def _cell(tree: Mapping[str, Any], overrides: Mapping[str, Any], values: Mapping[str, Any]) -> Cell:
    here = copy.deepcopy(dict(tree))
    overlay(here, overrides)
    try:
        config = config_from_mapping(here)
        check_privacy(config)
    except ConfigError as error:
        where = ", ".join(f"{key}={value!r}" for key, value in values.items())
        raise ConfigError(error.key, f"{error.reason} (in the cell {where})") from error
    return Cell(values, config, config_digest(config))
