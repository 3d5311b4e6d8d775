"""Engines: each adapts one serving library to `vortex.runtime`."""
