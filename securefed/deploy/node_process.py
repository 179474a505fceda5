"""The process of a hospital's node: it holds the site's folder, listens on a socket and logs lines of JSON."""

import json
import logging
import os
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from securefed.deploy.errors import DeploymentError
from securefed.engines.guard import Guarded
from securefed.engines.local_socket import SiteServer

SOCKET_NAME: Final = "node.sock"
TRACES: Final = "SECUREFED_TRACES"
"""Environment variable of a node; set to anything, its log holds traces."""

_LONGEST_PATH: Final = 107
"""Bytes of a Unix socket's path on Linux."""


def serve_node(folder: Path, socket_path: Path | None = None) -> None:
    """Open the node of a hospital's folder and answer on its socket until the process is ended.

    Args:
        folder: The hospital's folder.
        socket_path: Where to listen; `node.sock` in the folder unless given.

    Raises:
        DeploymentError: The path is too long for a socket, something else is there, or nothing can be made there; or
            another node of this hospital is running.
        RunFolderError, ConfigError, KeyFileError: The node cannot be opened.
    """
    from securefed.site.opening import open_site  # brings torch, which the commands that start nodes can do without

    path = (socket_path or folder / SOCKET_NAME).absolute()
    if len(str(path).encode()) > _LONGEST_PATH:
        raise DeploymentError(
            f"{path} is too long for a socket ({_LONGEST_PATH} bytes); name a shorter one with --socket"
        )
    log_as_json()
    node = open_site(folder)
    try:
        server = SiteServer(path, Guarded(lambda: node))
    except OSError as error:
        node.close()
        raise DeploymentError(f"cannot listen on {path}: {error.strerror or error}") from error
    with server:
        logging.getLogger("securefed.site").info("the node of %s listens on %s", folder, path)
        server.serve_forever()


def log_as_json() -> None:
    """Send this process's log to stderr, one JSON object a line.

    Traces of faults, which may quote values of the data and names of files, are in it only where `TRACES` is set.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_JsonLines())
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    if os.environ.get(TRACES):
        logging.getLogger("securefed").setLevel(logging.DEBUG)


class _JsonLines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, "numbers", {}),
        }
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return json.dumps(line)
