"""Engines that carry the protocol between machines: NVIDIA FLARE (extra `flare`) and Flower (extra `flower`).

An engine moves bytes, starts processes and brings mutual TLS. Everything that protects a hospital is ours and the same
as in one process: the state machines, the pinned roster, the policy of the site. `flare` and `flower` are the only
modules that import an engine; nothing imports them but the engine itself and the commands that deploy it.
"""
