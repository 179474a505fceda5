"""What the tests' Flower app is made of, and the process of a toy site's node."""

import sys
from pathlib import Path

from engine_toys import ToyNode, relay

from securefed.engines.guard import Guarded
from securefed.engines.local_socket import SiteServer


def server_app():
    from securefed.engines.flower import make_server_app

    return make_server_app(relay)


if __name__ == "__main__":
    site, path = sys.argv[1:]
    with SiteServer(Path(path), Guarded(lambda: ToyNode(site))) as server:
        server.serve_forever()
