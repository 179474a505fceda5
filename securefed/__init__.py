"""The federation: configuration, rounds, run folders and the in-process simulation."""
