"""SPEC.md says what the code does: requirements, labels, messages, errors, bytes and excerpts are compared."""

import json
import re
from pathlib import Path

import pytest

import protocols.messages as messages
from protocols import errors
from protocols.labels import VERSION, Label
from protocols.parameters import RoundParameters
from protocols.stages import Stage, ThreatModel
from protocols.traffic import PARAMETER_BYTES, expected_traffic
from protocols.wire import HEADER_BYTES, FrameType

ROOT = Path(__file__).parents[2]
SPEC = (ROOT / "protocols" / "SPEC.md").read_text(encoding="utf-8")
REQUIREMENTS = dict(re.findall(r"^- \[(M-\d+)\] (.*)$", SPEC, flags=re.MULTILINE))


def table(heading: str) -> list[list[str]]:
    """The rows of the first table after a heading, without its head."""
    section = SPEC.split(f"\n## {heading}", 1)[1]
    lines = section.split("\n")
    start = next(i for i, line in enumerate(lines) if line.startswith("|---"))
    rows = []
    for line in lines[start + 1 :]:
        if not line.startswith("|"):
            break
        cells = line.strip("|").replace("\\|", "\0").split("|")
        rows.append([cell.replace("\0", "|").strip().strip("`") for cell in cells])
    return rows


def quotes() -> dict[str, set[str]]:
    """{requirement: how tests quote it}, from the docstrings of test functions."""
    found: dict[str, set[str]] = {}
    for path in (*ROOT.glob("tests/protocols/**/*.py"), *ROOT.glob("tests/attacks/**/*.py")):
        source = path.read_text(encoding="utf-8")
        for name, text in re.findall(r'"""\[(M-\d+)\]\s+(.*?)"""', source, flags=re.DOTALL):
            found.setdefault(name, set()).add(" ".join(text.split()))
    return found


def test_every_requirement_is_quoted_by_a_test_word_by_word():
    assert len(REQUIREMENTS) == 43
    assert list(quotes().keys() - REQUIREMENTS.keys()) == []
    for name, text in REQUIREMENTS.items():
        assert quotes().get(name) == {text}, name


def test_every_must_has_a_number():
    for line in SPEC.split("\n"):
        if "MUST" in line:
            assert re.match(r"- \[M-\d+\] ", line), line


def test_requirements_are_numbered_without_gaps():
    assert sorted(int(name[2:]) for name in REQUIREMENTS) == list(range(1, len(REQUIREMENTS) + 1))


def test_labels():
    rows = table("5 Labels")
    assert {row[0] for row in rows} == {label.value for label in Label}
    for label in Label:
        text = f"securefed/secagg/v{VERSION}/{label.value}".encode()
        assert label.encoded == bytes([len(text)]) + text
    assert len({label.encoded for label in Label}) == len(Label)


def test_message_types():
    classes = [kind for kind in vars(messages).values() if isinstance(kind, type) and hasattr(kind, "TYPE")]
    kinds = {int(kind.TYPE): kind.__name__ for kind in classes}
    assert {int(row[0]): row[1] for row in table("12 Messages")} == kinds
    assert set(kinds) == {int(kind) for kind in FrameType}


def test_round_parameters():
    sizes = {"u8 or nothing": 0, "u8": 1, "u16": 2, "u32": 4, "u64": 8, "bytes[32]": 32, "positions list": 2}
    rows = table("4 Round parameters")
    assert sum(sizes[row[0]] for row in rows) == PARAMETER_BYTES
    assert {row[1] for row in rows} == set(RoundParameters.__dataclass_fields__)


def test_error_codes():
    section = SPEC.split("\n## 15 Errors", 1)[1].split("\n## ", 1)[0]
    listed = {int(code): name for code, name in re.findall(r"(\d+) (\w+Error)", section)}
    listed.pop(1, None)
    direct = {
        error.code: error.__name__
        for error in vars(errors).values()
        if isinstance(error, type) and issubclass(error, errors.ProtocolError) and "code" in vars(error)
    }
    direct.pop(1)
    assert listed == direct


def test_the_frame_shown_is_that_of_the_vectors():
    shown = SPEC.split("A ConsistencyCheckRequest of the test vectors", 1)[1].split("\n\n")[1]
    hexes = "".join(line.split()[0] for line in shown.strip().split("\n"))
    vectors = json.loads((ROOT / "tests" / "vectors" / "complete.json").read_text(encoding="utf-8"))
    assert hexes == vectors["consistency_check_request"]
    assert bytes.fromhex(hexes)[HEADER_BYTES:] == bytes.fromhex("04000b")


@pytest.mark.parametrize("threat_model", ThreatModel)
@pytest.mark.parametrize(("n", "k"), [(4, 3), (100, 99), (1000, 102)])
def test_byte_formula(n, k, threat_model):
    """The table of section 16, evaluated."""
    q, d, b, payload = 3 + k // 2, 1000, 23, 77
    complete, active = k == n - 1, threat_model is ThreatModel.ACTIVE
    names = {
        "n": n,
        "k": k,
        "q": q if active else 0,
        "payload": payload,
        "A": 65 + 32 * (not complete) + 64 * active,
        "o": int(complete),
        "S": 2 + -(-n // 8),
        "vector": -(-d * b // 8),
    }
    expected = expected_traffic(n, k, q, threat_model, d, b, payload)
    seen = set()
    for stage, down, up in table("16 Bytes"):
        if stage not in {s.value for s in expected}:
            continue
        sizes = []
        for formula in (down, up):
            text = formula.replace("34 n (k-regular)", "34 * n" if not complete else "0").replace(" (active)", "")
            text = text.replace("ceil(d b / 8)", "vector")
            text = re.sub(r"(\d+|\)) (?=[a-zA-Z(])", r"\1 * ", text)
            sizes.append(HEADER_BYTES + eval(text, {}, names))
        assert sizes == [expected[Stage(stage)].down, expected[Stage(stage)].up]
        seen.add(stage)
    assert seen == {s.value for s in expected}


@pytest.mark.parametrize(("n", "e"), [(4, 1), (10, 3), (100, 39)])
def test_byte_formula_of_excess_noise(n, e):
    """The second table of section 16, evaluated: what is added to a round without excess."""
    base, noisy = (expected_traffic(n, n - 1, n, ThreatModel.ACTIVE, 500, 20, 9, excess) for excess in (0, e))
    added = {stage: (noisy[stage].down - base[stage].down, noisy[stage].up - base[stage].up) for stage in base}
    rows = re.findall(r"^\| (\w+) \| (.*) \| (.*) \|$", SPEC.split("With e > 0, in addition")[1], flags=re.MULTILINE)
    names = {"n": n, "e": e, "E": 3 + 16 * e + 28 + 36 * e}
    found = dict.fromkeys(base, (0, 0))
    for stage, *formulas in rows[1:5]:
        texts = [re.sub(r"(\d+|\)|n) (?=[a-zA-Z(])", r"\1 * ", formula) for formula in formulas]
        found[Stage(stage)] = tuple(eval(text, {}, names) for text in texts)
    assert found == added


def test_no_section_is_missing():
    sections = re.findall(r"^## (\d+) ", SPEC, flags=re.MULTILINE)
    assert sections == [str(i) for i in range(1, 20)]
