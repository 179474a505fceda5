"""What the tests' Flower app is made of."""

from engine_toys import relay


def server_app():
    from securefed.engines.flower import make_server_app

    return make_server_app(relay)
