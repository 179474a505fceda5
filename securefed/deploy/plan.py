"""What is decided when a deployment is made, and what cannot be meant."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from protocols.transport import Patience
from securefed.errors import ConfigError
from securefed.identity import check_hospital

_HIGHEST_PORT: Final = 65535
_ALL: Final = "0.0.0.0"  # noqa: S104 (the sites come in through a firewall that forwards to it)
_HERE: Final = "127.0.0.1"
_HOST: Final = re.compile(r"[A-Za-z0-9_.-]{1,253}")
"""Names and IPv4 addresses: neither engine reaches a server by an IPv6 address."""
_LONGEST_OVER_FLARE: Final = 64
"""Characters of a host over FLARE, which makes it a certificate's common name."""


@dataclass(frozen=True)
class Plan:
    """What was decided when the deployment was made.

    Attributes:
        engine: flare or flower.
        host: How the sites call the server.
        port: The only port at which the sites reach the server.
        sites: {site: its folder on this machine, or "" where it is elsewhere}.
        listen: Port at which the server listens, where a firewall forwards `port` of `host` to it; 0: at `port` of
            `host`, which is then an address of the server's own.
    """

    engine: str
    host: str
    port: int
    sites: Mapping[str, str]
    listen: int = 0

    @property
    def server_port(self) -> int:
        """Port at which the server listens."""
        return self.listen or self.port

    @property
    def bind(self) -> str:
        """Address at which the server listens: all of its own where `host` is a firewall's."""
        return _ALL if self.listen else self.host

    @property
    def host_here(self) -> str:
        """How processes of the server's machine call it."""
        return _HERE if self.listen else self.host

    def check(self) -> None:
        """Refuse what cannot be meant.

        Raises:
            ConfigError: Names the option.
            RunFolderError: A site's folder is none, or others may read in it.
        """
        if not _HOST.fullmatch(self.host):
            raise ConfigError(
                "--host", f"{self.host!r} is no name or IPv4 address of a server; write fl.example.org, and --port"
            )
        if self.engine == "flare" and len(self.host) > _LONGEST_OVER_FLARE:
            raise ConfigError("--host", f"FLARE takes {_LONGEST_OVER_FLARE} characters at most: {self.host}")
        # Over Flower each site of this machine has a port of its own above the server's.
        highest = _HIGHEST_PORT - (len(self.sites) if self.engine == "flower" and any(self.sites.values()) else 0)
        if not 1 <= self.port <= (_HIGHEST_PORT if self.listen else highest):
            raise ConfigError("--port", f"must be 1 to {highest}, is {self.port}")
        if not 0 <= self.listen <= highest:
            raise ConfigError("--listen", f"must be 1 to {highest}, is {self.listen}")
        for site, path in self.sites.items():
            check_hospital(site, "--site")
            if path:
                _check_site(site, Path(path))


def _check_site(site: str, path: Path) -> None:
    from securefed.site.folder import SiteFolder  # brings torch, which the other commands can do without
    from securefed.site.settings import read_settings

    name = read_settings(SiteFolder.open(path).settings).site.name
    if name != site:
        raise ConfigError("--site", f"{path} is the folder of {name}, not of {site}")


def check_patience(wait: Patience) -> None:
    """Refuse waiting times that cannot be meant; raises ConfigError."""
    if not (math.isfinite(wait.timeout) and wait.timeout > 0):
        raise ConfigError("--timeout", f"must be a positive number of seconds, is {wait.timeout:g}")
    if not (math.isfinite(wait.grace) and wait.grace >= 0):
        raise ConfigError("--grace", f"must be a number of seconds, 0 or more, is {wait.grace:g}")
    if not 0 <= wait.quorum <= 1:
        raise ConfigError("--quorum", f"must be a share of the hospitals, 0 to 1, is {wait.quorum:g}")
