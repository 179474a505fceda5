"""Dealing one site to several clients."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clients.data import ImageDataset, PartitionError, Record, check_dataset, fingerprint, partition

CLASSES = ("a", "b", "c")


class NoSource:
    def load(self, path):
        raise AssertionError(path)


def single_site(patients=60, per_patient=3, seed=0, known=True):
    rng = np.random.default_rng(seed)
    records = []
    for patient in range(patients):
        split = ("train", "train", "train", "val", "test")[patient % 5]
        label = CLASSES[int(rng.integers(3))]
        for image in range(per_patient):
            name = f"{patient:03d}-{image}"
            who = f"p{patient}" if known else None
            records.append(Record(f"all/{label}/{name}", "all", label, who, split, f"{patient:032x}{image:032x}"))
    return ImageDataset("set", Path("root"), tuple(records), CLASSES, NoSource())


def test_a_held_out_site_that_is_called_as_a_client_is_refused():
    """The client's images would be those of the held-out site, and nobody's training."""
    dataset = single_site()
    held_out = replace(dataset.records[0], site="client_2", split="test", path="x", digest="f" * 64, patient="x")
    both = replace(dataset, records=(*dataset.records, held_out), global_site="client_2")
    with pytest.raises(PartitionError, match="the held-out site has the name client_2 of a client; rename the site"):
        partition(both, 3, None, 0)
    assert partition(both, 1, None, 0).all_sites == ("client_1", "client_2")


def client_of(dataset):
    return {record.path: record.site for record in dataset.records}


@settings(max_examples=60, deadline=None)
@given(
    n=st.integers(1, 12),
    alpha=st.sampled_from([None, 0.01, 0.1, 0.5, 5.0, 1000.0]),
    seed=st.integers(0, 2**32),
    known=st.booleans(),
)
def test_everything_is_dealt_once_and_nobody_goes_empty(n, alpha, seed, known):
    dataset = single_site(known=known)
    dealt = partition(dataset, n, alpha, seed)
    assert [(r.path, r.label, r.split, r.digest) for r in dealt.records] == [
        (r.path, r.label, r.split, r.digest) for r in dataset.records
    ]
    assert len(dealt.sites) == n
    assert dealt.classes == dataset.classes
    for site in dealt.sites:
        for split in ("train", "val", "test"):
            assert dealt.select(site, split)
    if known:
        clients = {}
        for record in dealt.records:
            clients.setdefault(record.patient, set()).add(record.site)
        assert all(len(found) == 1 for found in clients.values())


def test_the_seed_and_nothing_else_decides():
    dataset = single_site()
    np.random.seed(1)
    first = client_of(partition(dataset, 4, 0.5, 7))
    np.random.seed(2)
    assert client_of(partition(dataset, 4, 0.5, 7)) == first
    assert client_of(partition(dataset, 4, 0.5, 8)) != first
    assert client_of(partition(dataset, 4, None, 7)) != client_of(partition(dataset, 4, None, 8))


def test_iid_clients_are_of_nearly_one_size():
    dealt = partition(single_site(), 4, None, 0)
    sizes = Counter(record.site for record in dealt.records if record.split == "train")
    assert max(sizes.values()) - min(sizes.values()) <= 3


def test_a_small_alpha_skews_labels_and_a_large_one_does_not():
    dataset = single_site(patients=600, per_patient=1)

    def distance(alpha):
        overall = np.array(list(dataset.class_counts().values())) / len(dataset.records)
        gaps = []
        for seed in range(10):
            dealt = partition(dataset, 4, alpha, seed)
            for site in dealt.sites:
                counts = np.array(list(dealt.class_counts(site).values()))
                gaps.append(np.abs(counts / counts.sum() - overall).sum() / 2)
        return np.mean(gaps)

    assert distance(0.1) > 0.3
    assert distance(1000.0) < 0.1


def test_the_mix_of_a_client_is_the_same_in_training_and_test():
    dealt = partition(single_site(patients=3000, per_patient=1), 3, 0.3, 5)
    for site in dealt.sites:
        train, test = (np.array(list(dealt.class_counts(site, split).values())) for split in ("train", "test"))
        assert np.abs(train / train.sum() - test / test.sum()).sum() / 2 < 0.1


def test_copies_stay_together_where_patients_are_unknown():
    dataset = single_site(patients=30, per_patient=1, known=False)
    copies = tuple(
        Record(r.path + "-copy", r.site, r.label, None, r.split, r.digest)
        for r in dataset.records
        if r.split == "train"
    )
    doubled = ImageDataset("set", Path("root"), dataset.records + copies, CLASSES, NoSource())
    clients = {}
    for record in partition(doubled, 5, None, 0).records:
        clients.setdefault(record.digest, set()).add(record.site)
    assert all(len(found) == 1 for found in clients.values())


def test_the_held_out_site_stays(make_folder):
    dataset = single_site()
    kept = tuple(Record(f"far/a/{i}", "far", "a", None, "test", f"{i:064x}") for i in range(4))
    with_global = ImageDataset("set", Path("root"), dataset.records + kept, CLASSES, NoSource(), "far")
    dealt = partition(with_global, 3, 0.5, 0)
    assert dealt.sites == ("client_1", "client_2", "client_3")
    assert dealt.global_site == "far"
    assert len(dealt.select("far")) == 4


def test_names_sort_as_numbers_do():
    assert partition(single_site(), 11, None, 0).sites[:3] == ("client_01", "client_02", "client_03")


def test_a_partition_is_another_data_set():
    dataset = single_site()
    assert fingerprint(partition(dataset, 3, None, 0)) != fingerprint(dataset)
    assert fingerprint(partition(dataset, 3, None, 0)) == fingerprint(partition(dataset, 3, None, 0))


def test_a_split_too_small_for_all_is_left_and_reported():
    records = [r for r in single_site(patients=40).records if r.split != "val"] + [
        r for r in single_site(patients=5).records if r.split == "val"
    ]
    dealt = partition(ImageDataset("set", Path("root"), tuple(records), CLASSES, NoSource()), 4, None, 0)
    assert "empty_split" in {warning.kind for warning in check_dataset(dealt)}


@pytest.mark.parametrize(
    ("n", "alpha", "words"),
    [
        (0, None, "use 1 to 36"),
        (37, None, "use 1 to 36"),
        (2, 0.0, "above 0"),
        (2, np.inf, "above 0"),
        (2, 1e308, "too large"),
    ],
)
def test_what_cannot_be_dealt_is_refused(n, alpha, words):
    with pytest.raises(PartitionError, match=words):
        partition(single_site(), n, alpha, 0)


def test_several_sites_are_not_mixed():
    dealt = partition(single_site(), 3, None, 0)
    with pytest.raises(PartitionError, match="client_1, client_2, client_3"):
        partition(dealt, 2, None, 0)
