"""`site check`: budget, clock, disk and device, each as it is and as it must not be."""

from datetime import UTC, datetime
from types import SimpleNamespace

import pytest
import torch

from audit.accounting import Repeated, upper_epsilon
from audit.bounds import at_least
from audit.heads import SignedHead, TreeHead
from audit.ledger import Ledger
from securefed.config import DataConfig
from securefed.errors import RunFolderError
from securefed.site.approving import hand_out
from securefed.site.checks import Level, check_site
from securefed.site.folder import SiteFolder
from securefed.site.settings import PlaceConfig, SiteSettings
from securefed.site.status import site_status
from tests.audit.ledger.money import ACCOUNT, NOISE, charge, policy

NOW = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)


@pytest.fixture
def north(tmp_path):
    """Make a hospital whose data are not there, which none of these checks minds."""

    def make(device="auto"):
        settings = SiteSettings(PlaceConfig(name="north", device=device), DataConfig(source=str(tmp_path / "nowhere")))
        return SiteFolder.create(tmp_path / "north", settings)

    return make


def finding(folder, topic, now=NOW):
    (found,) = [found for found in check_site(folder, None, now) if found.topic == topic]
    return found


def spend(folder, epsilon):
    with Ledger(folder.ledger) as ledger:
        ledger.install(policy(epsilon))
        ledger.reserve(ACCOUNT, charge("one"))
        ledger.release("one")
        ledger.commit("one")
    folder.ledger.chmod(0o600)


def test_a_folder_that_is_not_there_is_wrong(tmp_path):
    found = check_site(SiteFolder(tmp_path / "nope"), None, NOW)
    assert {one.level for one in found} == {Level.WRONG}
    assert found[0].text == f"{tmp_path / 'nope'} is not there; make it with `site init`"


def test_an_approval_that_cannot_be_handed_out_says_where_it_lies(north, tmp_path):
    folder = north()
    folder.approval.write_text("{}")
    with pytest.raises(RunFolderError, match=rf"cannot be written .* is approved: hand {folder.approval} to the lead"):
        hand_out(folder, tmp_path / "none" / "approval.json")


@pytest.mark.parametrize("left", [b"", b"short"])
def test_a_key_of_the_datas_name_that_was_cut_off_is_wrong(north, left):
    """No node starts with it, and `site approve` would have kept it."""
    folder = north()
    folder.data_key.write_bytes(left)
    folder.data_key.chmod(0o600)
    (found,) = [found for found in check_site(folder, None, NOW) if found.level is Level.WRONG and found.topic == "key"]
    assert f"data.key: holds {len(left)} bytes, a key has 32: its making was cut off" in found.text
    assert "`site approve`" in found.text


def test_what_is_left_of_a_budget_is_said(north):
    folder = north()
    found = finding(folder, "budget")
    assert (found.level, "no budget is set" in found.text) == (Level.LOOK, True)
    spend(folder, epsilon=3.0)
    found = finding(folder, "budget")
    left = 3.0 - upper_epsilon([Repeated(NOISE, 1)], 1e-5)
    assert (found.level, found.text) == (Level.OK, f"{at_least(left)} of 3 left for the unit image")


def test_looking_at_a_ledger_leaves_nothing_beside_it(north):
    """What another user's reader made beside it, the node could not open: it would be kept from its own ledger."""
    folder = north()
    spend(folder, epsilon=3.0)
    before = {path: path.stat().st_mtime_ns for path in (folder.path, *folder.path.rglob("*"))}
    assert finding(folder, "budget").level is Level.OK
    assert [line["charges"] for line in site_status(folder)["budget"]] == [1]
    assert {path: path.stat().st_mtime_ns for path in (folder.path, *folder.path.rglob("*"))} == before


def test_a_spent_budget_is_wrong(north):
    folder = north()
    spend(folder, epsilon=upper_epsilon([Repeated(NOISE, 1)], 1e-5))
    found = finding(folder, "budget")
    assert found.level is Level.WRONG
    assert found.text.startswith("0 of ")


def test_a_damaged_ledger_is_wrong_and_no_crash(north):
    folder = north()
    folder.write(folder.ledger, b"no ledger" * 1000)
    assert finding(folder, "budget").level is Level.WRONG


@pytest.mark.parametrize(
    ("now", "level"),
    [
        (NOW, Level.OK),
        (datetime(2026, 11, 23, tzinfo=UTC), Level.LOOK),
        (datetime(2024, 1, 1, tzinfo=UTC), Level.LOOK),
    ],
)
def test_a_clock_behind_the_last_signed_head_is_told(north, now, level):
    folder = north()
    head = TreeHead("run", 1, 3, "0" * 64, "2026-11-24T11:00:00.000000Z")
    folder.write(folder.heads_of("run"), SignedHead(head, "0" * 128, {}).encode() + b"\n")
    found = finding(folder, "clock", now)
    assert found.level is level
    if (
        level is Level.LOOK
    ):  # whose clock is wrong nobody can tell here: a server's must keep no hospital from approving
        assert "a server signed a run at" in found.text
        assert "set the clock, or tell the lead" in found.text


def test_heads_that_cannot_be_read_are_named(north):
    folder = north()
    folder.write(folder.heads_of("run"), b"no head\n")
    found = finding(folder, "clock")
    assert found.level is Level.WRONG
    assert "run.jsonl" in found.text


def test_a_disk_without_room_for_a_study_is_wrong(north, monkeypatch):
    folder = north()
    assert finding(folder, "disk").level is Level.OK
    monkeypatch.setattr("securefed.site.checks.shutil.disk_usage", lambda path: SimpleNamespace(free=100 * 2**20))
    found = finding(folder, "disk")
    assert (found.level, found.text) == (Level.WRONG, "0.1 GiB free; a study needs 0.5")


def test_a_gpu_is_named_where_there_is_one(north, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda number: f"H100 number {number}")
    found = finding(north(), "device")
    assert (found.level, found.text) == (Level.OK, "GPU H100 number 0")


@pytest.mark.parametrize(("device", "level"), [("auto", Level.OK), ("cpu", Level.OK), ("cuda", Level.WRONG)])
def test_a_gpu_that_is_asked_for_and_missing_is_wrong(north, monkeypatch, device, level):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert finding(north(device), "device").level is level
