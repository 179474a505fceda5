"""Synthetic cohorts of features, and rounds over them: what the speed benchmarks have in common."""

import hashlib
import platform
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import numpy as np

from clients.encoders import FeatureBundle, LabelledFeatures, SiteFeatures
from protocols.entropy import system_entropy
from protocols.roster import IdentityKey, Roster
from securefed.aggregation import Aggregator
from securefed.federation import Federation
from securefed.hospitals import Hospitals
from securefed.nodes.simulated import SimulatedSites
from securefed.sum_terms import SumTerms

WIDTH, CLASSES = 512, 8


def cohort(train, val, test, *, seed=0, width=WIDTH, classes=CLASSES):
    """A bundle with len(train) sites of so many images each: classes around centres, a shift a site."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(classes, width)).astype(np.float32)

    def rows(count, shift, tag):
        labels = rng.integers(0, classes, count)
        x = centres[labels] + 6 * rng.standard_normal((count, width), dtype=np.float32) + shift
        x /= np.linalg.norm(x, axis=1, keepdims=True)
        paths = tuple(f"{tag}/{index}" for index in range(count))
        digests = tuple(hashlib.sha256(path.encode()).hexdigest() for path in paths)
        return LabelledFeatures(x, labels.astype(np.int64), paths, digests)

    sites = []
    for number, counts in enumerate(zip(train, val, test, strict=True)):
        shift = 0.3 * rng.standard_normal(width, dtype=np.float32)
        splits = zip(("train", "val", "test"), counts, strict=True)
        parts = {split: rows(n, shift, f"{number}/{split}") for split, n in splits}
        sites.append(SiteFeatures(f"site{number:04d}", **parts))
    return FeatureBundle(
        classes=tuple(f"class {number}" for number in range(classes)),
        prompts=tuple((f"a picture of a class {number}",) for number in range(classes)),
        embed_dim=width,
        text_features=centres / np.linalg.norm(centres, axis=1, keepdims=True),
        logit_scale=100.0,
        sites=tuple(sites),
        global_site=None,
        encoder_name="synthetic",
        encoder_digest="0" * 64,
        data_fingerprint="0" * 64,
        images_encoded=0,
        cache_hits=0,
        encode_seconds=0.0,
    )


def federation(bundle, config, workers, hospitals=None):
    """The whole loop over rounds as a simulation has it, without a run folder."""
    federated = config.federation
    hospitals = hospitals or Hospitals(
        bundle, config.training, federated.method, federated.seed, "cpu", workers=workers
    )
    identities = {site.site: IdentityKey.generate(system_entropy) for site in bundle.sites}
    terms = SumTerms(config, Roster.of(identities), bundle.embed_dim, len(bundle.classes))
    sites = SimulatedSites(identities, terms, hospitals, workers)
    aggregator = Aggregator(terms, sites, sites, verifier=sites.verifier)
    return Federation(hospitals, aggregator, terms.initial_vector, federated.select)


def named_gpu(device):
    """What a figure of a GPU must be read with beside the rest."""
    if device == "cpu":
        return {}
    import torch

    return {"GPU": torch.cuda.get_device_name()}


def machine(**packages):
    """What a figure must be read with."""
    model = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        told = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
        model = told["model name"]
        if "cpu family" in told:  # a cloud's machines bear one name through several generations
            model += f" (family {told['cpu family']}, model {told.get('model', '?')})"
        load = float(Path("/proc/loadavg").read_text(encoding="utf-8").split()[0])
    except (OSError, KeyError):
        load = float("nan")
    from clients.method.threads import usable_cores

    return {
        "processor": model,
        "cores": usable_cores(),
        "load": load,
        "date": datetime.now(UTC).date().isoformat(),
        "python": platform.python_version(),
        **{name: version(name) for name in ("torch", "numpy", "cryptography")},
        **packages,
    }
