"""Secure aggregation: ring codec, pads, shares, keys, messages, client and server state machines (SPEC.md)."""
