"""An encoder with its caches, loaded only when something is not in them."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from clients.encoders.cache import FeatureCache
from clients.encoders.card import EncoderCard, files_key, read_card, write_card
from clients.encoders.encoding import encode_texts
from clients.encoders.frozen import FrozenEncoder
from clients.encoders.loading import Compute, choose_compute, load_encoder
from clients.encoders.options import EncodeOptions, default_cache_dir
from clients.encoders.prompts import average_prompts
from clients.encoders.spec import EncoderSpec
from clients.encoders.weights import fetch_files, local_files


@dataclass(frozen=True)
class EncoderSession:
    """An encoder that is loaded only when something is not in the cache."""

    spec: EncoderSpec
    options: EncodeOptions

    @cached_property
    def cache_dir(self) -> Path:
        """Folder of the caches."""
        return self.options.cache_dir or default_cache_dir()

    @cached_property
    def encoder(self) -> FrozenEncoder:
        """The loaded encoder; raises EncoderError."""
        return load_encoder(self.spec, self.compute)

    @cached_property
    def compute(self) -> Compute:
        """Where and how precisely to compute."""
        return choose_compute(self.options.device, self.options.precision)

    @cached_property
    def card(self) -> EncoderCard:
        """What is known of the encoder: remembered for the state of its files, else from loading it."""
        if local_files(self.spec) is None:
            fetch_files(self.spec)
        files = local_files(self.spec)
        if files is None:
            return self.encoder.card
        key = files_key(self.spec.model, files)
        card = read_card(self.cache_dir, key)
        if card is None:
            card = self.encoder.card
            write_card(self.cache_dir, key, card)
        return card

    @cached_property
    def image_cache(self) -> FeatureCache:
        """Cache of the features of images."""
        description = {
            "encoder": self.card.digest,
            "input": "image/v2",
            "precision": f"{self.compute.precision} {self.compute.device.type}",
        }
        return FeatureCache(self.cache_dir, description, self.card.embed_dim)

    @cached_property
    def text_cache(self) -> FeatureCache:
        """Cache of the features of prompts; always fp32."""
        description = {"encoder": self.card.digest, "input": "text/v1", "precision": "fp32"}
        return FeatureCache(self.cache_dir, description, self.card.embed_dim)

    def text_features(self, prompts: Sequence[Sequence[str]]) -> NDArray[np.float32]:
        """Return float32[C, D], rows of norm 1: for every class the average over its prompts."""
        digests = {text: hashlib.sha256(text.encode()).hexdigest() for texts in prompts for text in texts}
        rows = dict(self.text_cache.read(digests.values()).rows)
        missing = sorted({text for text, digest in digests.items() if digest not in rows})
        if missing:
            encoded = encode_texts(self.encoder, missing)
            fresh = {digests[text]: encoded[i] for i, text in enumerate(missing)}
            self.text_cache.add(fresh)
            rows.update(fresh)
        return average_prompts([np.stack([rows[digests[text]] for text in texts]) for texts in prompts])
