"""Dealing one hospital's images to several pretended ones."""

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from clients.data.dataset import SPLITS, ImageDataset, Record
from clients.data.errors import PartitionError


@dataclass(frozen=True)
class _Unit:
    """What is dealt as a whole: a patient's images, or where patients are unknown an image with its copies."""

    key: str
    label: str
    split: str
    images: int


def partition(dataset: ImageDataset, n: int, alpha: float | None, seed: int) -> ImageDataset:
    """Deal the images of a single-site data set to n clients `client_1`, `client_2`, ...

    A patient goes to one client as a whole (an image with its copies, where patients are unknown). IID: the patients
    of each split are shuffled and each goes to the client with the fewest images so far. Dirichlet: for every class
    shares over the clients are drawn once and used in all splits, so that a client is tested on the mix of classes it
    trains on. Afterwards every client without a patient in a split gets one from the client with the most, wherever
    the split has at least n patients. A held-out site stays as it is.

    Args:
        dataset: A data set in which one site trains.
        n: Number of clients, at least 1 and at most the number of patients in training.
        alpha: Concentration of the Dirichlet distribution, above 0 (small: clients differ more), and so far below the
            largest float that the clients' sum is one; None for IID.
        seed: Seed of the generator; the same seed gives the same partition.

    Raises:
        PartitionError: There are several sites, n or alpha is out of range, or the held-out site is called as a client.

    Source: label-skewed partitions as in Hsu, Qi, Brown (arXiv 1909.06335), section 4.1, except that there every
    client's mix is drawn, and here every class's shares (Yurochkin et al., arXiv 1905.12022, section 5), as is usual.
    """
    if len(dataset.sites) != 1:
        raise PartitionError(n, f"the data have the sites {', '.join(dataset.sites)}; leave --clients away to use them")
    if alpha is not None and not (alpha > 0 and math.isfinite(alpha)):
        raise PartitionError(n, f"alpha {alpha} must be above 0 and finite")
    units = _units(dataset.select(dataset.sites[0]))
    available = sum(unit.split == "train" for unit in units)
    if not 1 <= n <= available:
        raise PartitionError(n, f"use 1 to {available}, the number of patients (or images) in training")
    if alpha is not None and not math.isfinite(2.0 * n * alpha):
        raise PartitionError(n, f"alpha {alpha} is too large to draw shares; leave it away for clients that are alike")
    rng = np.random.default_rng(seed)
    owner = _deal_evenly(units, n, rng) if alpha is None else _deal_by_class(units, n, alpha, rng)
    _fill_gaps(units, owner, n)
    width = len(str(n))
    client = {unit.key: f"client_{owner[unit.key] + 1:0{width}d}" for unit in units}
    if dataset.global_site in client.values():
        raise PartitionError(n, f"the held-out site has the name {dataset.global_site} of a client; rename the site")
    records = tuple(
        record if record.site == dataset.global_site else replace(record, site=client[_unit_key(record)])
        for record in dataset.records
    )
    return replace(dataset, records=records)


def _unit_key(record: Record) -> str:
    return f"digest:{record.digest}" if record.patient is None else f"patient:{record.patient}"


def _units(records: Sequence[Record]) -> list[_Unit]:
    members = defaultdict(list)
    for record in records:
        members[_unit_key(record)].append(record)
    return [
        _Unit(key, _most_common(found, _label), _most_common(found, _split), len(found))
        for key, found in sorted(members.items())
    ]


def _label(record: Record) -> str:
    return record.label


def _split(record: Record) -> str:
    return record.split


def _most_common(records: Sequence[Record], value: Callable[[Record], str]) -> str:
    counts = Counter(value(record) for record in records)
    return min(counts, key=lambda name: (-counts[name], name))


def _deal_evenly(units: Sequence[_Unit], n: int, rng: np.random.Generator) -> dict[str, int]:
    owner: dict[str, int] = {}
    total = np.zeros(n, dtype=np.int64)
    for split in SPLITS:
        images = np.zeros(n, dtype=np.int64)
        members = [unit for unit in units if unit.split == split]
        for index in rng.permutation(len(members)):
            unit = members[index]
            client = min(range(n), key=lambda i: (images[i], total[i], i))
            owner[unit.key] = client
            images[client] += unit.images
            total[client] += unit.images
    return owner


def _deal_by_class(units: Sequence[_Unit], n: int, alpha: float, rng: np.random.Generator) -> dict[str, int]:
    owner: dict[str, int] = {}
    for label in sorted({unit.label for unit in units}):
        shares: NDArray[np.float64] = rng.dirichlet(np.full(n, alpha))
        for split in SPLITS:
            members = [unit for unit in units if unit.label == label and unit.split == split]
            order = rng.permutation(len(members))
            cuts = np.rint(np.cumsum(shares)[:-1] * len(members)).astype(np.int64)
            for client, indices in enumerate(np.split(order, cuts)):
                for index in indices:
                    owner[members[index].key] = client
    return owner


def _fill_gaps(units: Sequence[_Unit], owner: dict[str, int], n: int) -> None:
    """Give every client a unit of each split, in place, wherever the split has at least n of them."""
    for split in SPLITS:
        held: list[list[str]] = [[] for _ in range(n)]
        for unit in units:
            if unit.split == split:
                held[owner[unit.key]].append(unit.key)
        if sum(map(len, held)) < n:
            continue
        for client in range(n):
            if not held[client]:
                richest = max(range(n), key=lambda i: (len(held[i]), -i))
                moved = held[richest].pop()
                held[client].append(moved)
                owner[moved] = client
