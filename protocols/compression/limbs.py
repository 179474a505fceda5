"""Counters in narrow rings: a number is written in the base that one coordinate can hold, and limbs add up exactly.

Digits of several clients add without carrying, so that sum_j base**j * (sum of the digits j) is the sum of the numbers.
"""

from collections.abc import Sequence


def limb_count(maximum: int, base: int) -> int:
    """Return how many digits in `base` (at least 2) hold every number from 0 to `maximum`."""
    count, reach = 1, base
    while reach <= maximum:
        count, reach = count + 1, reach * base
    return count


def to_limbs(number: int, base: int, count: int) -> list[int]:
    """Return the digits of a number in [0, base**count), the lowest first."""
    digits = []
    for _ in range(count):
        number, digit = divmod(number, base)
        digits.append(digit)
    return digits


def from_limbs(digits: Sequence[int], base: int) -> int:
    """Return the number whose digits these are; digits may be sums, and so exceed the base or, with noise, be < 0."""
    return sum(int(digit) * base**place for place, digit in enumerate(digits))
