"""protocols/noise/SPEC.md: requirements are quoted by tests, and the known answers follow from the primitives alone."""

import hashlib
import hmac
import json
import re
from pathlib import Path

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from protocols.noise.keystream import Use
from protocols.noise.tables import NoiseKind, noise_table

ROOT = Path(__file__).parents[3]
SPEC = (ROOT / "protocols" / "noise" / "SPEC.md").read_text(encoding="utf-8")
REQUIREMENTS = dict(re.findall(r"^- \[(N-\d+)\] (.*)$", SPEC, flags=re.MULTILINE))
VECTORS = json.loads((ROOT / "tests" / "vectors" / "noise.json").read_text(encoding="utf-8"))


def keystream(seed: bytes, use: str, length: int) -> bytes:
    """RFC 5869 and AES-256-CTR, without the package's code."""
    text = b"securefed/noise/v1/" + use.encode()
    extracted = hmac.new(bytes(32), seed, hashlib.sha256).digest()
    key = hmac.new(extracted, bytes([len(text)]) + text + b"\x01", hashlib.sha256).digest()
    return Cipher(algorithms.AES256(key), modes.CTR(bytes(16))).encryptor().update(bytes(length))


def bits(data: bytes, count: int) -> list[int]:
    return [data[i // 8] >> (i % 8) & 1 for i in range(count)]


def transform(vector: list[float]) -> list[float]:
    return [sum(x * (-1) ** bin(i & j).count("1") for j, x in enumerate(vector)) for i in range(len(vector))]


def rotate(vector: list[float], seed: bytes) -> np.ndarray:
    d = len(vector)
    p = 1 << (d.bit_length() - 1)
    drawn = bits(keystream(seed, "rotation", (2 * p + 7) // 8), 2 * p)
    x = list(vector)
    for number, start in enumerate([0] if p == d else [0, d - p]):
        signed = [value * (1 - 2 * e) for value, e in zip(x[start : start + p], drawn[number * p :], strict=False)]
        x[start : start + p] = [value / p**0.5 for value in transform(signed)]
    return np.array(x)


def draws(rows: list[int], seed: bytes, count: int) -> list[int]:
    upper, lower = (keystream(seed, use, 8 * count) for use in ("magnitudes", "ties"))
    signs = bits(keystream(seed, "signs", (count + 7) // 8), count)
    found = []
    for i in range(count):
        number = int.from_bytes(upper[8 * i : 8 * i + 8], "little") << 64
        number |= int.from_bytes(lower[8 * i : 8 * i + 8], "little")
        magnitude = sum(row <= number for row in rows)
        found.append(-magnitude if signs[i] else magnitude)
    return found


def test_every_requirement_is_quoted_by_a_test_word_by_word():
    found: dict[str, set[str]] = {}
    for path in Path(__file__).parent.glob("test_*.py"):
        for name, text in re.findall(r'"""\[(N-\d+)\]\s+(.*?)"""', path.read_text(encoding="utf-8"), flags=re.DOTALL):
            found.setdefault(name, set()).add(" ".join(text.split()))
    assert found == {name: {text} for name, text in REQUIREMENTS.items()}
    assert list(REQUIREMENTS) == [f"N-{number}" for number in range(1, len(REQUIREMENTS) + 1)]
    for line in SPEC.split("\n"):
        assert "MUST" not in line or re.match(r"- \[N-\d+\] ", line), line


def test_the_uses_of_keystreams_are_those_of_the_page():
    assert set(re.findall(r"^\| `(\w+)` \|", SPEC.split("## 3")[0], flags=re.MULTILINE)) == {use.value for use in Use}


@pytest.mark.parametrize("entry", VECTORS["rotations"], ids=lambda entry: f"d={len(entry['vector'])}")
def test_rotations(entry):
    np.testing.assert_allclose(rotate(entry["vector"], bytes.fromhex(entry["seed"])), entry["rotated"], atol=1e-12)


@pytest.mark.parametrize("entry", VECTORS["noise"], ids=lambda entry: f"{entry['kind']} {entry['variance']}")
def test_rows_and_draws(entry):
    table = noise_table(NoiseKind(entry["kind"]), entry["variance"])
    rows = [table.row(k) for k in range(len(table.high))]
    assert [str(row) for row in rows[: len(entry["rows"])]] == entry["rows"]
    assert len(rows) == entry["row_count"]
    assert draws(rows, bytes.fromhex(entry["seed"]), len(entry["draws"])) == entry["draws"]


def test_an_encoded_vector():
    """Every step from the vector to ring elements, with the primitives of this page."""
    entry = VECTORS["encoded"]
    d, m, s, b = entry["dimension"], entry["limit"], entry["scale"], entry["ring_bits"]
    vector = [np.float32(x) for x in entry["vector"]]
    grid = np.clip(rotate([float(x) for x in vector], bytes.fromhex(entry["rotation_seed"])) * s, -m, m)
    uniforms = np.frombuffer(keystream(bytes.fromhex(entry["rounding_seed"]), "rounding", 4 * d), "<u4") / 2**32
    integers = np.floor(grid + uniforms).astype(int)
    assert integers.tolist() == entry["integers"]
    table = noise_table(NoiseKind(entry["kind"]), entry["share_variance"])
    noise = draws([table.row(k) for k in range(len(table.high))], bytes.fromhex(entry["noise_seed"]), d)
    assert noise == entry["noise"]
    assert ((integers + m + noise) % (1 << b)).tolist() == entry["lanes"]


def test_the_known_answers_are_those_of_the_code():
    from tests.vectors.generate_noise import noise_vectors

    assert noise_vectors() == VECTORS
