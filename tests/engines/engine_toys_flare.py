"""The two classes that the tests' FLARE jobs name."""

from engine_toys import open_toy, relay

from securefed.engines.flare import FlareServer, FlareSite


class ToySite(FlareSite):
    def open_node(self):
        return open_toy()


class ToyServer(FlareServer):
    def serve(self, transport):
        relay(transport)
