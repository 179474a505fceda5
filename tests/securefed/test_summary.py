"""What summary.json says of a run is counted over the rounds and hospitals that there were."""

from pathlib import Path

from audit.history import RoundRecord
from audit.report import communication as of_reports
from securefed import summary
from securefed.summary import communication


def record(number, clients):
    sent = {client: {"up": {"MaskedInputCollection": {"payload": 100 * number}}, "down": {}} for client in clients}
    return RoundRecord(number, number, tuple(clients), tuple(clients), {}, "", "", sent, superseded=False)


def test_bytes_a_client_and_round_are_over_the_hospitals_that_took_part_in_each():
    """Five contributions in all; three hospitals in two rounds would be six."""
    training = [record(1, ["north", "south", "west"]), record(2, ["north", "south"])]
    assert communication([], training)["upload_bytes_per_client_round"] == (3 * 100 + 2 * 200) / 5


def test_the_papers_fam_is_the_same_bytes_in_summaries_reports_and_the_docs_of_both():
    """The paper writes MB for 2**20 bytes: 526,336 parameters in float32 are its 2.01 MB."""
    assert round(526_336 * 4 / 2**20, 2) == 2.01
    assert summary.PAPER_FAM_BYTES == of_reports.PAPER_FAM_BYTES == round(1.36 * 2**20)
    assert summary.FEDAVG_CLIP_BYTES == of_reports.FEDAVG_CLIP_BYTES
    page = (Path(__file__).resolve().parents[2] / "docs" / "run-folder.md").read_text()
    assert f"{summary.PAPER_FAM_BYTES:,} bytes: 1.36 MiB" in page
    assert f"{summary.FEDAVG_CLIP_BYTES:,} bytes up" in page
