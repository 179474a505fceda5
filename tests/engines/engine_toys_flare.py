"""The class that the tests' FLARE jobs name at the server."""

from engine_toys import relay

from securefed.engines.flare import FlareServer


class ToyServer(FlareServer):
    def serve(self, transport):
        relay(transport)
