"""The ServerApp that a study's Flower app is made of; its ClientApp is `securefed.engines.flower.make_client_app`."""

from typing import Any

from securefed.engines.flower import make_server_app
from securefed.engines.study import serve_study


def make_study_app() -> Any:
    """Return the ServerApp that runs the study of the server's folder."""
    return make_server_app(serve_study)
