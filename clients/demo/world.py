"""The generic world that the demo's encoder learns from: one shape on some ground, and a sentence about it.

It shares the outlines of `shapes` with the cohort and nothing else: no anatomy, no hospital's scanner, no patient.
Grounds, colours and disturbances are drawn at random for every picture from ranges that belong to no hospital.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from clients.demo import shapes
from clients.demo.fields import Field, blurred, bump, cloud, coordinates, curve, placed, radius, waves, within
from clients.demo.randomness import Stream

SCENE_PIXELS = 96
"""Side of a picture of the world; the encoder sees the cohort at this size too."""


@dataclass(frozen=True)
class Subject:
    """A thing that a picture can show.

    Attributes:
        names: What it is called; the first two are the plain ones.
        draw: Makes the shape, float32[size, size] in [0, 1], of (stream, x, y, size); None for nothing at all.
    """

    names: tuple[str, ...]
    draw: Callable[[Stream, float, float, float], Field] | None


def _turned(stream: Stream, x: float, y: float) -> tuple[Field, Field]:
    return placed(SCENE_PIXELS, x, y, stream.direction())


def _ball(stream: Stream, x: float, y: float, size: float) -> Field:
    return shapes.ball(stream, *_turned(stream, x, y), 0.75 * size, stream.between(0.03, 0.15))


def _star(stream: Stream, x: float, y: float, size: float) -> Field:
    return shapes.star(stream, *_turned(stream, x, y), 1.15 * size, stream.between(0.04, 0.1))


def _ring(stream: Stream, x: float, y: float, size: float) -> Field:
    return shapes.ring(stream, *_turned(stream, x, y), 0.8 * size, stream.between(0.04, 0.1))


def _dots(stream: Stream, x: float, y: float, size: float) -> Field:
    return shapes.dots(stream, SCENE_PIXELS, x, y, size, 6 + stream.below(12))


def _haze(stream: Stream, x: float, y: float, size: float) -> Field:
    return shapes.haze(stream, *_turned(stream, x, y), size)


def _stripe(stream: Stream, x: float, y: float, size: float) -> Field:
    return shapes.stripe(stream, *_turned(stream, x, y), 1.1 * size, stream.between(0.03, 0.06))


def _square(stream: Stream, x: float, y: float, size: float) -> Field:
    u, v = _turned(stream, x, y)
    return within(np.maximum(np.abs(u), np.abs(v)) - 0.7 * size, 0.05)


def _triangle(stream: Stream, x: float, y: float, size: float) -> Field:
    u, v = _turned(stream, x, y)
    return within(np.maximum(np.abs(u) * 0.87 + v * 0.5, -v) - 0.5 * size, 0.05)


def _cross(stream: Stream, x: float, y: float, size: float) -> Field:
    u, v = _turned(stream, x, y)
    across, down = np.abs(u), np.abs(v)
    arm = np.minimum(np.maximum(across - size, down - 0.2 * size), np.maximum(down - size, across - 0.2 * size))
    return within(arm, 0.05)


def _crescent(stream: Stream, x: float, y: float, size: float) -> Field:
    u, v = _turned(stream, x, y)
    return within(radius(u, v) - size, 0.05) * (1.0 - within(radius(u - 0.5 * size, v) - 0.85 * size, 0.05))


def _grid(stream: Stream, x: float, y: float, size: float) -> Field:
    u, v = _turned(stream, x, y)
    step = size * stream.between(0.35, 0.6)
    lines = np.minimum(np.abs(u / step - np.floor(u / step + 0.5)), np.abs(v / step - np.floor(v / step + 0.5)))
    return within(lines - 0.12, 0.1) * within(np.maximum(np.abs(u), np.abs(v)) - 1.2 * size, 0.05)


def _flower(stream: Stream, x: float, y: float, size: float) -> Field:
    u, v = _turned(stream, x, y)
    return within(radius(u, v) - size * (0.75 + 0.25 * waves(u, v, 3 + stream.below(3))), 0.06)


SUBJECTS: tuple[Subject, ...] = (
    Subject(("disc", "ball", "round nodule", "round spot", "smooth nodule"), _ball),
    Subject(("star", "burr", "spiculated mass", "spiky mass", "spiculated lesion"), _star),
    Subject(("ring", "hoop", "ring lesion", "ring shaped lesion", "closed circle"), _ring),
    Subject(("group of dots", "cluster of specks", "calcification cluster", "cluster of calcifications"), _dots),
    Subject(("cloud", "patch of fog", "hazy opacity", "haze", "diffuse opacity"), _haze),
    Subject(("line", "thin streak", "linear scar", "scar", "narrow band"), _stripe),
    Subject(("square", "box"), _square),
    Subject(("triangle", "wedge"), _triangle),
    Subject(("cross", "plus sign"), _cross),
    Subject(("crescent", "moon"), _crescent),
    Subject(("grid", "net"), _grid),
    Subject(("flower", "lobed blob"), _flower),
    Subject(("plain ground", "picture without anything"), None),
)
"""Everything that the world has; six of the shapes also have the names that findings have in radiology."""

_TINTS = (("grey", (1.0, 1.0, 1.0)), ("red", (1.0, 0.6, 0.5)), ("blue", (0.55, 0.75, 1.0)), ("brown", (1.0, 0.85, 0.6)))


@dataclass(frozen=True)
class Scene:
    """One picture of the world and a sentence about it.

    Attributes:
        picture: uint8[SCENE_PIXELS, SCENE_PIXELS, 3].
        sentence: A sentence that is true of it.
        facts: All that is true of the picture.
        claims: What the sentence says: a part of the facts. It is true of every other picture whose facts include it.
    """

    picture: NDArray[np.uint8]
    sentence: str
    facts: frozenset[str]
    claims: frozenset[str]


def draw_scene(stream: Stream, hardness: float) -> Scene:
    """Return a picture and a sentence about it.

    Args:
        stream: Determines both.
        hardness: From 0 (strong, rather large shapes, little noise) to 1 (faint and small ones, noise, negatives).
    """
    subject = SUBJECTS[stream.below(len(SUBJECTS))]
    large = stream.chance(0.5)
    size = stream.between(0.3, 0.45) if large else stream.between(0.24 - 0.1 * hardness, 0.3)
    x, y = stream.between(-0.45, 0.45), stream.between(-0.45, 0.45)
    value, ground = _ground(stream, hardness)
    strength = stream.between(0.45 - 0.3 * hardness, 0.55)
    bright = stream.chance(0.75)
    if subject.draw is not None:
        value = value + subject.draw(stream, x, y, size) * (strength if bright else -strength)
    value, quality, inverted = _disturbed(stream, value, hardness)
    tint, colour = _TINTS[0] if stream.chance(0.5) else _TINTS[stream.below(len(_TINTS))]
    depth = stream.between(0.6, 1.4)
    channels = [value * (1.0 - (1.0 - share) * depth * (1.0 - value)) for share in colour]
    picture = np.floor(np.clip(np.stack(channels, axis=2), 0.0, 1.0) * 255.0 + 0.5).astype(np.uint8)
    words = {"quality": quality, "tint": tint, "ground": ground}
    if subject.draw is not None:
        words |= {"size": "large" if large else "small", "tone": "dark" if bright == inverted else "bright"}
    sentence, said = _sentence(stream, subject.names[stream.below(len(subject.names))], words)
    facts = frozenset((subject.names[0], *words.values()))
    return Scene(picture, sentence, facts, frozenset((subject.names[0], *(words[kind] for kind in said))))


def _ground(stream: Stream, hardness: float) -> tuple[Field, str]:
    """Return a ground in [0, 1] and words for it."""
    x, y = coordinates(SCENE_PIXELS)
    across, down = stream.direction()
    value = stream.between(0.2, 0.5) + stream.between(0.0, 0.15) * (x * across + y * down)
    words = "a smooth background"
    if stream.chance(0.5):
        value = value + stream.between(0.06, 0.2) * cloud(stream, SCENE_PIXELS, 2 + stream.below(8), 2)
        words = "a mottled background"
    if stream.chance(0.3 + 0.4 * hardness):
        value = value + _clutter(stream)
        words = "a busy background"
    if stream.chance(0.5):
        u, v = x - stream.between(-0.1, 0.1), y - stream.between(-0.1, 0.1)
        distance = _outline(stream, u, v)
        border = within(np.abs(distance) - stream.between(0.01, 0.06), 0.05) * stream.between(0.0, 0.5)
        opening = within(distance, 0.06)
        outside = 0.0 if stream.chance(0.6) else stream.unit()
        value = value * opening + outside * (1.0 - opening) + border
        words = "a framed field"
    return value, words


def _outline(stream: Stream, u: Field, v: Field) -> Field:
    """Return a signed distance that is negative inside of a random ellipse, box or wedge."""
    kind = stream.below(4)
    distance = radius(u / stream.between(0.7, 1.0), v / stream.between(0.7, 1.0)) - 1.0
    if kind == 0:
        distance = np.maximum(np.abs(u) - stream.between(0.7, 0.95), np.abs(v) - stream.between(0.7, 0.95))
    if kind == 1:
        depth = v + stream.between(1.1, 1.6)
        distance = np.maximum(np.abs(u) - stream.between(0.5, 0.9) * depth, radius(u, depth) - stream.between(1.9, 2.4))
    return distance


def _clutter(stream: Stream) -> Field:
    """Return threads and patches, which no sentence names."""
    added = np.zeros((SCENE_PIXELS, SCENE_PIXELS), np.float32)
    for _ in range(1 + stream.below(3)):
        u, v = placed(SCENE_PIXELS, stream.between(-0.7, 0.7), stream.between(-0.7, 0.7), stream.direction())
        added = added + shapes.vessel(stream, u, v) * stream.between(0.04, 0.18)
    for _ in range(1 + stream.below(4)):
        u, v = placed(SCENE_PIXELS, stream.between(-0.8, 0.8), stream.between(-0.8, 0.8), stream.direction())
        patch = within(radius(u / stream.between(0.1, 0.5), v / stream.between(0.1, 0.4)) - 1.0, 0.2)
        added = added + patch * stream.between(-0.14, 0.14)
    return added


def _disturbed(stream: Stream, value: Field, hardness: float) -> tuple[Field, str, bool]:
    """Return the picture after the lens, the detector and the print, a word for it, and whether it is a negative."""
    x, y = coordinates(SCENE_PIXELS)
    passes = stream.below(3)
    value = blurred(value, passes)
    if stream.chance(0.4 * hardness):
        value = value * (1.0 - stream.between(-0.3, 0.6) * 0.5 * (x * x + y * y))
    inverted = stream.chance(0.35 * hardness)
    value = 1.0 - value if inverted else value
    if stream.chance(0.4 * hardness):
        value = value + _litter(stream)
    noise = stream.between(0.0, 0.02 + 0.04 * hardness)
    coarse = stream.below(2)
    grain = blurred(stream.grain(SCENE_PIXELS, SCENE_PIXELS), coarse) * (1.0, 2.667)[coarse]
    speckle = stream.between(0.0, 0.25 * hardness) if stream.chance(0.4) else 0.0
    value = value + (noise + value * speckle) * grain
    value = curve(np.clip(value, 0.0, 1.0), stream.between(-0.25, 0.25))
    quality = "noisy" if noise > 0.03 or speckle > 0.12 else "blurred" if passes == 2 else "clear"
    return value, quality, inverted


def _litter(stream: Stream) -> Field:
    """Return scratches and one to three bright spots anywhere, which no sentence names."""
    added = np.zeros((SCENE_PIXELS, SCENE_PIXELS), np.float32)
    for _ in range(1 + stream.below(3)):
        u, v = placed(SCENE_PIXELS, stream.between(-1.0, 1.0), stream.between(-1.0, 1.0), stream.direction())
        added = added + bump(radius(u, v * stream.between(1.0, 2.5)), stream.between(0.03, 0.1)) * 0.6
    if stream.chance(0.5):
        column, top = stream.below(SCENE_PIXELS), stream.below(SCENE_PIXELS)
        added[top : top + SCENE_PIXELS // 3, column] += np.float32(0.2)
    return added


def _sentence(stream: Stream, name: str, words: dict[str, str]) -> tuple[str, tuple[str, ...]]:
    """Return a sentence about a thing of that name, and which kinds of words it uses."""
    quality, tint, ground = words["quality"], words["tint"], words["ground"]
    sentences = [
        (f"a picture of a {name}", ()),
        (f"{name}", ()),
        (f"a {quality} picture of a {name}", ("quality",)),
        (f"a {tint} picture of a {name}", ("tint",)),
        (f"a {name} on {ground}", ("ground",)),
    ]
    if "size" in words:
        size, tone = words["size"], words["tone"]
        sentences += [
            (f"a picture of a {size} {name}", ("size",)),
            (f"a picture of a {tone} {name}", ("tone",)),
            (f"a {quality} {tint} picture of a {size} {tone} {name} on {ground}", tuple(words)),
        ]
    return sentences[stream.below(len(sentences))] if stream.chance(0.6) else sentences[0]
