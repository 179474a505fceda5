"""How fast images are encoded, against the encoder's own forward pass."""

import itertools
import statistics
import tempfile
import time
from pathlib import Path

import open_clip
import torch
from speed_cohort import machine, named_gpu

from clients.data import DataOptions, load_dataset
from clients.encoders import EncodeOptions
from clients.encoders.card import EncoderCard
from clients.encoders.decoding import choose_workers, decoded_batches
from clients.encoders.encoding import CPU_BATCH, CUDA_BATCH, encode_batches
from clients.encoders.frozen import FrozenEncoder
from clients.encoders.loading import choose_compute
from clients.encoders.session import EncoderSession
from clients.encoders.spec import parse_encoder


def encode(source, encoder_name, images, device, random_weights):
    """Images a second of preparing features, against those of the encoder's forward pass on images in its memory.

    Where the data has fewer images than asked for they are taken again. A GPU needs some thousands: its decoding
    processes take a whole batch each, and their start counts.
    """
    dataset, _ = load_dataset(source, DataOptions())
    size, turns = (CPU_BATCH, 5) if device == "cpu" else (CUDA_BATCH, 3)
    with tempfile.TemporaryDirectory() as cache:
        encoder = random_encoder(random_weights, device) if random_weights else loaded(encoder_name, cache, device)
        paths = list(itertools.islice(itertools.cycle(record.path for record in dataset.records), images))
        workers = choose_workers(-1, encoder.device)
        decoded = [
            encoder.scaled(torch.from_numpy(batch.pixels))
            for batch in decoded_batches(dataset.source, paths, encoder.resize, size, workers)
            if len(batch.positions) == size
        ]
        if not decoded:
            raise SystemExit(f"--images: at least {size} are needed with --device {device}, are {images}")
        count = size * len(decoded)
        encoder.features(decoded[0]).cpu()
        rates = {"forward": [], "whole": []}
        for _ in range(turns):
            start = time.perf_counter()
            torch.cat([encoder.features(batch) for batch in decoded]).cpu()
            rates["forward"].append(count / (time.perf_counter() - start))
            start = time.perf_counter()
            for _ in encode_batches(encoder, dataset.source, paths[:count], 0, -1):
                pass
            rates["whole"].append(count / (time.perf_counter() - start))
    share = statistics.median(w / f for f, w in zip(rates["forward"], rates["whole"], strict=True))
    medians = {name: statistics.median(values) for name, values in rates.items()}
    what = f"{random_weights} (random weights)" if random_weights else encoder_name.rsplit("/", 1)[-1]
    where = machine(**named_gpu(device))
    return {"machine": where, "data": Path(source).name, "encoder": what, "workers": workers, **medians, "share": share}


def loaded(name, cache, device):
    """The encoder of a name."""
    return EncoderSession(parse_encoder(name), EncodeOptions(cache_dir=Path(cache), device=device)).encoder


def random_encoder(model, device):
    """An encoder of a known shape whose weights cannot be downloaded here: time does not depend on them."""
    clip, _, preprocess = open_clip.create_model_and_transforms(model, pretrained=None)
    card = EncoderCard("0" * 64, clip.visual.output_dim, 100.0)
    compute = choose_compute(device, "auto")
    return FrozenEncoder(
        clip, open_clip.get_tokenizer(model), preprocess, card, torch.device(device), compute.precision
    )
