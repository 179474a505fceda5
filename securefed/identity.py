"""Identity keys of the parties: made where they are used, their public halves gathered into one roster."""

import json
import re
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from audit.durable import write_new, write_whole
from audit.roster import Roster, is_small_order, public_hex
from audit.signing_key import create_key, load_key
from securefed.errors import ConfigError, RunFolderError

PUBLIC_FORMAT = "securefed-public-key/1"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_TAKEN = re.compile(r"server|ca|lead|.*-node", re.IGNORECASE)
"""What a deployment calls its own keys, folders and processes beside those of its hospitals."""


def check_name(name: str, where: str = "NAME") -> None:
    """Refuse a name that files and folders cannot have; raises ConfigError, which names `where` it stands."""
    if not _NAME.fullmatch(name):
        raise ConfigError(
            where, f"{name!r}: use letters, digits, dots, dashes and underscores, 100 at most, a letter or digit first"
        )


def check_hospital(name: str, where: str = "NAME") -> None:
    """Refuse what cannot be a hospital's name; raises ConfigError, which names `where` it stands."""
    check_name(name, where)
    if _TAKEN.fullmatch(name):
        raise ConfigError(
            where,
            f"{name!r} cannot be a hospital's name, nor can server, ca, lead and what ends in -node: a deployment has "
            "these names for things of its own; choose another one, and make the key with it",
        )


def new_identity(name: str, folder: Path) -> tuple[Path, Path]:
    """Make an Ed25519 key pair and write `<name>.key` (for its owner only) and `<name>.pub` (to hand out).

    Of a key whose .pub is not there, as a full disk or a kill leaves it, the .pub is written.

    Raises:
        ConfigError: The name cannot be a file name.
        KeyFileError: Both exist already, or the key cannot be written or read.
        RunFolderError: The folder or the .pub cannot be written.
    """
    check_name(name)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunFolderError(folder, f"cannot be made ({error.strerror}); name a writable folder") from error
    secret, public = folder / f"{name}.key", folder / f"{name}.pub"
    key = load_key(secret) if secret.exists() and not public.exists() else create_key(secret)
    write_public(name, key, public)
    return secret, public


def write_public(name: str, key: Ed25519PrivateKey, path: Path) -> None:
    """Write the .pub file of a key.

    Raises:
        ConfigError: The name cannot be a party's.
        RunFolderError: It cannot be written.
    """
    check_name(name)
    content = {"format": PUBLIC_FORMAT, "name": name, "key": public_hex(key)}
    try:
        write_whole(path, [json.dumps(content).encode() + b"\n"])
    except OSError as error:
        raise RunFolderError(
            path,
            f"cannot be written ({error.strerror}); see that the disk works and has space, or name a writable place; "
            "do it again if the file is not there",
        ) from error


def read_public(path: Path) -> tuple[str, str]:
    """Return (name, key in hex) of a .pub file; raises ConfigError where it is none."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError("PUBLIC", f"{path} cannot be read ({error.strerror}); check the path") from error
    except ValueError as error:
        raise ConfigError("PUBLIC", f"{path} is no public key of `keys new`") from error
    if not isinstance(content, dict) or set(content) != {"format", "name", "key"}:
        raise ConfigError("PUBLIC", f"{path} is no public key of `keys new`")
    name, key = content["name"], content["key"]
    valid = content["format"] == PUBLIC_FORMAT and isinstance(name, str) and isinstance(key, str)
    if not valid or not _NAME.fullmatch(name) or not re.fullmatch(r"[0-9a-f]{64}", key):
        raise ConfigError("PUBLIC", f"{path} is damaged; ask its owner for it again")
    return name, key


def make_roster(server: Path, hospitals: list[Path], output: Path) -> Roster:
    """Gather public keys into a roster file that every party pins before the study.

    Raises:
        ConfigError: A key or a name stands twice, a name is a deployment's own, or a key protects nothing.
        RunFolderError: The file exists or cannot be written.
    """
    _, server_key = read_public(server)
    members: dict[str, str] = {}
    for path in hospitals:
        name, key = read_public(path)
        check_hospital(name, "PUBLIC")
        if name in members:
            raise ConfigError("PUBLIC", f"two hospitals are called {name}; one must make a key with another name")
        members[name] = key
    weak = [name for name, key in {"the server": server_key, **members}.items() if is_small_order(key)]
    if weak:
        raise ConfigError("PUBLIC", f"anybody can sign under the key of {weak[0]}: it must make a key with `keys new`")
    if len({server_key, *members.values()}) != len(members) + 1:
        raise ConfigError("PUBLIC", "one key stands twice; every party makes a key of its own")
    roster = Roster(server_key, members)
    try:
        write_new(output, [roster.encode()])
    except FileExistsError as error:
        raise RunFolderError(output, "exists already and a roster is never overwritten; name a new file") from error
    except OSError as error:
        raise RunFolderError(
            output, f"cannot be written ({error.strerror}); free space there, or name a writable place"
        ) from error
    return roster
