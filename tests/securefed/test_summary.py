"""What summary.json says of a run is counted over the rounds and hospitals that there were."""

from audit.history import RoundRecord
from securefed.summary import communication


def record(number, clients):
    sent = {client: {"up": {"MaskedInputCollection": {"payload": 100 * number}}, "down": {}} for client in clients}
    return RoundRecord(number, number, tuple(clients), tuple(clients), {}, "", "", sent, superseded=False)


def test_bytes_a_client_and_round_are_over_the_hospitals_that_took_part_in_each():
    """Five contributions in all; three hospitals in two rounds would be six."""
    training = [record(1, ["north", "south", "west"]), record(2, ["north", "south"])]
    assert communication([], training)["upload_bytes_per_client_round"] == (3 * 100 + 2 * 200) / 5
