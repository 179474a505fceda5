"""Names of parties: what files can be called, and what a deployment calls things of its own."""

import errno
import os
from pathlib import Path

import pytest

from audit.errors import KeyFileError
from audit.roster import public_hex
from audit.signing_key import load_key
from securefed.deploy.certificates import make_authority_and_server, make_node_key
from securefed.deploy.plan import Plan
from securefed.errors import ConfigError, RunFolderError
from securefed.identity import make_roster, new_identity, read_public
from securefed.site.folder import SiteFolder
from securefed.site.settings import DataConfig, PlaceConfig, SiteSettings

TAKEN = ("server", "ca", "lead", "Server", "north-node")


def site_init(name, tmp_path):
    SiteFolder.create(tmp_path / "site", SiteSettings(PlaceConfig(name), DataConfig(source="images")))


def keys_roster(name, tmp_path):
    for folder, party in (("s", "server"), ("h", name)):
        new_identity(party, tmp_path / folder)
    make_roster(tmp_path / "s" / "server.pub", [tmp_path / "h" / f"{name}.pub"], tmp_path / "roster.json")


def plan(name, tmp_path):
    Plan("flower", "localhost", 8002, {name: ""}).check()


@pytest.mark.parametrize("door", [site_init, keys_roster, plan])
@pytest.mark.parametrize("name", TAKEN)
def test_a_name_that_a_deployment_has_for_itself_is_no_hospitals(tmp_path, door, name):
    with pytest.raises(ConfigError, match=f"'{name}' cannot be a hospital's name, nor can server, ca, lead"):
        door(name, tmp_path)
    assert not (tmp_path / "site").exists()
    assert not (tmp_path / "roster.json").exists()


def no_room(monkeypatch, name):
    """Have a disk refuse files of this name; return what to call once there is room again."""
    real = os.open

    def full(path, *arguments, **options):
        if Path(path).name.startswith(name):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(path, *arguments, **options)

    monkeypatch.setattr(os, "open", full)
    return monkeypatch.undo


@pytest.mark.parametrize("name", ["north.key", "north.pub"])
def test_a_key_that_a_full_disk_cut_off_is_made_by_the_same_command(tmp_path, monkeypatch, name):
    make_room = no_room(monkeypatch, name)
    with pytest.raises((KeyFileError, RunFolderError), match="No space left"):
        new_identity("north", tmp_path)
    make_room()
    secret, public = new_identity("north", tmp_path)
    assert read_public(public) == ("north", public_hex(load_key(secret)))
    with pytest.raises(KeyFileError, match="never overwritten"):
        new_identity("north", tmp_path)


@pytest.mark.parametrize("name", ["site.toml", "identity.key", "identity.pub"])
def test_a_folder_that_a_full_disk_cut_off_is_made_by_the_same_command(tmp_path, monkeypatch, name):
    make_room = no_room(monkeypatch, name)
    with pytest.raises((KeyFileError, RunFolderError), match="No space left"):
        site_init("north", tmp_path)
    make_room()
    site_init("north", tmp_path)


def test_a_folder_that_a_kill_left_is_told_from_a_whole_one(tmp_path):
    site_init("north", tmp_path)
    with pytest.raises(RunFolderError, match=r"name a new folder for this hospital$"):
        site_init("north", tmp_path)
    (tmp_path / "site" / "identity.pub").unlink()
    with pytest.raises(RunFolderError, match="or delete it, if a `site init` that was cut off has left it"):
        site_init("north", tmp_path)


@pytest.mark.parametrize("name", ["", "../north", "a b", "-north", "n" * 101])
def test_a_name_that_no_file_can_have_is_refused_before_anything_is_made(tmp_path, name):
    with pytest.raises((ConfigError, RunFolderError), match=r"site\.name|use letters, digits, dots"):
        site_init(name, tmp_path)
    assert not (tmp_path / "site").exists()


def test_a_key_of_a_deployment_is_never_written_over_another(tmp_path):
    make_authority_and_server(tmp_path, "localhost")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    for name in ("server", "ca"):
        with pytest.raises(FileExistsError):
            make_node_key(tmp_path, name)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    assert (tmp_path / "ca.key").stat().st_mode & 0o777 == 0o600
