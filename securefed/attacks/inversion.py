"""Gradient inversion: what an image's update shows of the image's features, with each kind of protection.

One image's gradient of the first masked layer is a product of two vectors, one of them the input itself; what the
straight-through thresholds add to it is known from their own gradient. So the feature is read off, up to scale.
"""

import hashlib
from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from clients.encoders import FeatureBundle, LabelledFeatures
from clients.method.layout import Vector, flatten, unflatten, vector_layout
from clients.method.model import HospitalModel
from clients.method.parts import build_model, shared_part
from protocols.client.machine import ClientMachine
from protocols.client.session import RoundContext
from protocols.codec import FixedPointCodec
from protocols.driver import run_round
from protocols.entropy import system_entropy
from protocols.messages import MaskedInputReply, decode_message
from protocols.parameters import RoundParameters
from protocols.policy import ClientPolicy
from protocols.roster import IdentityKey, RememberingVerifier, Roster
from protocols.server.machine import ServerMachine
from protocols.simulator import InterceptedTransport, Recorder
from protocols.vectors import Aggregate, EncodedVector, MaskedVector
from securefed.attacks.findings import Finding
from securefed.config import RunConfig

NAME = "gradient inversion"
_SIGMAS = 6.0
"""A random direction has a cosine above this many 1 / sqrt(D) with a probability of 2e-9."""


def invert_gradients(
    config: RunConfig,
    bundle: FeatureBundle,
    vector: Vector,
    *,
    noise_multiplier: float | None = None,
    of_the_sum: float | None = None,
) -> list[Finding]:
    """Return the cosine of the recovered with the true feature of one image, in each setting.

    The image is the first training image of the first hospital. Its gradient has the norm 1, as clipping leaves it, and
    is what the hospital would send after one step of plain gradient descent on this image alone.

    Args:
        config: Configuration of the run.
        bundle: Its data.
        vector: float32[d], the shared parameters from which the update is made.
        noise_multiplier: Noise in a single update over the clip norm; None for a run without any, of which 1 is shown.
        of_the_sum: The same in an opened sum, where hospitals add the noise in shares; None where each adds all of it.
    """
    if config.federation.method not in ("fedmedclip", "fedclip"):
        return [Finding(NAME, "not tried", "MEASURED", {}, "Not tried: the method sends no FAM.")]
    sites = [site for site in bundle.sites if site.train.labels.size]
    gradients = {site.site: _gradient(config, bundle, vector, site.train) for site in sites}
    victim, truth = sites[0].site, np.asarray(sites[0].train.features[0], dtype=np.float64)
    limit = _SIGMAS / np.sqrt(bundle.embed_dim)
    shapes = dict(vector_layout(bundle.embed_dim, config.training, "fedclip"))

    def finding(setting: str, seen: NDArray[np.float64], told: str, *, claims: bool = False) -> Finding:
        cosine = _cosine(_recovered(seen, vector, shapes), truth)
        outcome = "MEASURED" if not claims else ("PASS" if abs(cosine) <= limit else "FAIL")
        return Finding(NAME, setting, outcome, {"cosine": cosine}, told)

    clear = gradients[victim].astype(np.float64)
    noise = np.random.default_rng().normal(size=clear.size)  # protects nobody: it shows what noise would do
    known = noise_multiplier is not None
    multiplier = 1.0 if noise_multiplier is None else noise_multiplier
    of_what = "" if of_the_sum is None else "one share of the noise, "
    found = [
        finding("no protection", clear, "The update as it is: 1 is the very feature."),
        finding(
            f"differential privacy, {of_what}noise multiplier {multiplier:.4g}{'' if known else ' (not of this run)'}",
            clear + multiplier * noise,
            "The update, clipped and under the noise of one step."
            if of_the_sum is None
            else "The clipped update under what is left of its share of the noise to one who opens single updates.",
        ),
    ]
    if len(gradients) >= 3:
        masked, opened = _sent_and_opened(gradients, victim)
        found[1:1] = [
            finding(
                "secure aggregation, the victim's own message",
                masked,
                f"What the server receives of the hospital; a random direction stays within {limit:.2f}.",
                claims=True,
            ),
            finding(
                f"secure aggregation, the sum of {len(gradients)} hospitals",
                opened,
                "What the server opens: a mean of features, which differs from none of them by much where features "
                "resemble one another. A sum alone leaks.",
            ),
        ]
        if of_the_sum is not None:
            told = "What the server opens in this run: the sum with the noise of all shares."
            setting = f"differential privacy, the sum under noise multiplier {of_the_sum:.4g}"
            found.append(finding(setting, opened + of_the_sum * noise, told))
    others = np.mean([site.train.features[0] for site in sites[1:]] or [np.zeros_like(truth)], axis=0)
    baseline = Finding(
        NAME,
        "nothing seen: the mean of other images",
        "MEASURED",
        {"cosine": _cosine(np.asarray(others, dtype=np.float64), truth)},
        "What a guess without the update reaches; settings are to be read against it.",
    )
    return [*found, baseline]


def _gradient(config: RunConfig, bundle: FeatureBundle, vector: Vector, rows: LabelledFeatures) -> Vector:
    """float32[d]: the gradient of the first image's loss in the order of the shared vector, scaled to the norm 1."""
    model = build_model(bundle.text_features, bundle.logit_scale, config.training, "fedclip", "", 0, "cpu")
    assert isinstance(model, HospitalModel)  # noqa: S101 (narrows the type)
    shared = shared_part(model, "fedclip")
    unflatten(vector, shared)
    image = torch.from_numpy(np.array(rows.features[:1], dtype=np.float32))
    logits = model.logit_scale * model.fam(image) @ model.text_features.T
    loss = F.cross_entropy(logits, torch.tensor([int(rows.labels[0])]))
    parameters = [parameter for _, parameter in shared]
    found: tuple[Tensor | None, ...] = torch.autograd.grad(loss, parameters, allow_unused=True)
    filled = [torch.zeros_like(p) if g is None else g for p, g in zip(parameters, found, strict=True)]
    flat = flatten(list(zip((name for name, _ in shared), filled, strict=True)))
    norm = float(np.linalg.norm(flat.astype(np.float64)))
    return (flat / max(norm, 1e-30) * 0.999).astype(np.float32)


def _recovered(seen: NDArray[np.float64], vector: Vector, shapes: Mapping[str, tuple[int, ...]]) -> NDArray[np.float64]:
    """float64[D]: the input's direction that a gradient of the first layer shows."""
    parts, weights, offset = {}, {}, 0
    for name, shape in shapes.items():
        size = int(np.prod(shape))
        parts[name] = seen[offset : offset + size].reshape(shape)
        weights[name] = vector[offset : offset + size].reshape(shape).astype(np.float64)
        offset += size
    gradient, bias = parts["fam.first.weight"], parts["fam.first.bias"]
    threshold = parts.get("fam.first.threshold", np.zeros(len(bias)))
    rest = gradient + threshold[:, None] / gradient.shape[1] * np.sign(weights["fam.first.weight"])
    return np.asarray(bias @ rest, dtype=np.float64)


def _cosine(left: NDArray[np.float64], right: NDArray[np.float64]) -> float:
    scale = float(np.linalg.norm(left) * np.linalg.norm(right))
    return float(left @ right) / scale if scale > 0 else 0.0


def _sent_and_opened(gradients: Mapping[str, Vector], victim: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Run a round of the protocol; return the victim's message decoded as if it were an update, and the opened sum."""
    identities = {name: IdentityKey.generate(system_entropy) for name in gradients}
    roster = Roster.of(identities)
    codec = FixedPointCodec([len(gradients[victim])], [1.0], 16)
    digest = hashlib.sha256(b"gradient inversion").digest()

    def contribute(context: RoundContext) -> EncodedVector:
        rounding = np.random.default_rng(list(context.client.encode()))
        return codec.encode(gradients[context.client], rounding)

    parameters = RoundParameters.choose(round=1, roster=roster, codec=codec, config_digest=digest)
    policy = ClientPolicy(config_digest=digest, min_corrupt=parameters.corrupt)
    verifier = RememberingVerifier()
    clients = {
        name: ClientMachine(key, roster, policy, contribute, verifier=verifier) for name, key in identities.items()
    }
    recorder = Recorder()
    server = ServerMachine(parameters, roster, b"", verifier=verifier)
    result = run_round(server, InterceptedTransport(clients, [recorder]))
    frame = recorder.find("MaskedInputCollection", victim, "up")
    _, message = decode_message(MaskedInputReply, frame, len(frame))
    sent = MaskedVector.decode(message.packed, message.length, message.ring_bits)
    as_if_open = Aggregate(sent.lanes, sent.ring_bits, 1)
    # Centred, as an attacker would: a masked coordinate is uniform over the ring and not over the range of an update.
    masked = codec.decode_sum(as_if_open, 1)
    return masked - masked.mean(), codec.decode_sum(result.total, len(result.survivors))
