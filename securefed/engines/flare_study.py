"""The class that a study's FLARE job names at the server; at the sites it is `securefed.engines.flare.FlareSite`."""

from securefed.engines.exchange import EngineTransport
from securefed.engines.flare import FlareServer
from securefed.engines.study import serve_study


class StudyServer(FlareServer):
    """Runs the study of the server's folder."""

    def serve(self, transport: EngineTransport) -> None:
        """Run it to its end, or go on with it."""
        serve_study(transport)
