"""Names in the environment by which an administrator tells an engine's processes where the party's own things are."""

from typing import Final

SITE_SOCKET: Final = "SECUREFED_SITE_SOCKET"
"""Socket of the site's node."""
FLOWER_NODES: Final = "SECUREFED_FLOWER_NODES"
"""JSON file at the server, {site: Flower's id of its registered node}."""
SERVER_FOLDER: Final = "SECUREFED_SERVER"
"""Folder of the study at the server."""
NO_REPLY: Final = b""
"""What a site's engine carries back where its node gives no reply; no reply is empty."""
