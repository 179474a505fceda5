"""What a text or a time of a record may hold."""

import pytest

from audit.rules import NAME, PROSE, TIME, FieldError


@pytest.mark.parametrize("sign", ["\x00", "\x1b", "\x1f", "\x7f", "\x80", "\x9b", "\x9f"])
def test_no_text_holds_what_a_terminal_takes_for_a_command(sign):
    for rule in (NAME, PROSE):
        rule.check("Köln 2\u00a0a", "place")
        with pytest.raises(FieldError, match="control characters"):
            rule.check(f"a{sign}2Jb", "place")


@pytest.mark.parametrize(
    "moment",
    [
        "2026-02-30T00:00:00.000000Z",
        "2026-13-01T00:00:00.000000Z",
        "2026-01-01T24:00:00.000000Z",
        "2026-01-01T00:61:00.000000Z",
        "0000-01-01T00:00:00.000000Z",
        "\u0662026-01-01T00:00:00.000000Z",
        "2026-01-01T00:00:00.00000\u0660Z",
    ],
)
def test_a_time_that_never_was_is_none(moment):
    TIME.check("2024-02-29T23:59:59.999999Z", "time")
    with pytest.raises(FieldError):
        TIME.check(moment, "time")
