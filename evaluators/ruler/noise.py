"""The fixed five-sentence filler of the noise haystack, repeated as often as needed."""

from __future__ import annotations

NOISE_SENTENCES = (
    "The grass is green.",
    "The sky is blue.",
    "The sun is bright.",
    "There we go.",
    "And back we come again.",
)
