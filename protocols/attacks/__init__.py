"""The attack catalogue: what an adversary would try, played with real machines against the installed build.

Each attack is a record with a function; it ends REFUSED, HARMLESS or BROKEN with one line of evidence. The tests in
tests/attacks run the same functions, and show for each of them that it comes out BROKEN once the defence is taken away.
"""

from protocols.attacks.catalogue import ATTACKS, run_attack, run_catalogue, select
from protocols.attacks.records import Attack, AttackReport, Finding, Outcome

__all__ = ["ATTACKS", "Attack", "AttackReport", "Finding", "Outcome", "run_attack", "run_catalogue", "select"]
