"""Measurements of sparse-attention programs: RULER, the probe model, measurement, and the workers that run
it."""
