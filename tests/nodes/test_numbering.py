"""Rounds and attempts as one number."""

from securefed.nodes.numbering import protocol_round, training_round


def test_rounds_and_attempts_make_one_number():
    assert training_round(protocol_round(100_001, 7)) == 100_001
    assert protocol_round(1, 8) > protocol_round(100_001, 7)
    assert protocol_round(1, (1 << 15) - 1) < 1 << 32
