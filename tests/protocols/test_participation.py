import random
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocols import IsolationError
from protocols.participation import Participation, _reduce, isolated
from protocols.roster import Roster

ABCDEF = frozenset("abcdef")


def slow_rank(rows):
    """Gaussian elimination in fractions."""
    matrix = [[Fraction(int(client in row)) for client in "abcdef"] for row in rows]
    found = 0
    for column in range(6):
        pivot = next((i for i in range(found, len(matrix)) if matrix[i][column]), None)
        if pivot is None:
            continue
        matrix[found], matrix[pivot] = matrix[pivot], matrix[found]
        for i in range(len(matrix)):
            if i != found and matrix[i][column]:
                factor = matrix[i][column] / matrix[found][column]
                matrix[i] = [a - factor * b for a, b in zip(matrix[i], matrix[found], strict=True)]
        found += 1
    return found


@given(st.lists(st.frozensets(st.sampled_from("abcdef"), min_size=1), max_size=8))
@settings(max_examples=200, deadline=None)
def test_rank_and_isolation_agree_with_fractions(rows):
    assert len(_reduce(rows)) == slow_rank(rows)
    expected = [c for c in "abcdef" if rows and slow_rank([*rows, frozenset(c)]) == slow_rank(rows)]
    assert list(isolated(rows)) == expected


def test_removing_one_client_isolates_it():
    assert isolated([ABCDEF, ABCDEF - {"f"}]) == ("f",)
    assert isolated([ABCDEF, ABCDEF - {"e", "f"}]) == ()
    assert isolated([frozenset("abc"), frozenset("bcd"), frozenset("acd"), frozenset("abd")]) == ("a", "b", "c", "d")
    assert _reduce([]) == {}
    assert isolated([]) == ()


@pytest.mark.parametrize("second", ["abcde", "abcd", "abc", "abcdeg", "defgh"])
def test_another_set_over_the_same_model_is_refused_and_over_the_next_model_is_not(second):
    sums = Participation(3)
    sums.check(b"m" * 32, ABCDEF)
    sums.add(b"m" * 32, ABCDEF)
    sums.check(b"m" * 32, "abcdef")
    with pytest.raises(IsolationError) as caught:
        sums.check(b"m" * 32, second)
    assert set(caught.value.clients) == ABCDEF ^ set(second)
    sums.check(b"n" * 32, second)


def test_a_sum_of_one_client_is_refused_at_once():
    with pytest.raises(IsolationError):
        Participation(3).check(b"m" * 32, "a")


def test_history_survives_storage():
    roster = Roster({name: name.encode() * 32 for name in "abcdef"})
    sums = Participation(3)
    for model in (b"m" * 32, b"n" * 32):
        for row in random.Random(1).sample([ABCDEF, ABCDEF - set("abc"), ABCDEF - set("def")], 2):
            sums.add(model, row)
    again = Participation.decode(sums.encode(roster), 3, roster)
    assert again._rows == sums._rows
    assert again.rows == sums.rows
    assert len(sums.rows) == 4
