"""Differential privacy in the federation: what a configuration may claim, and what it has spent."""
