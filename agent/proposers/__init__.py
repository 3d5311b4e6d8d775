"""Proposers: where the next candidate comes from."""
