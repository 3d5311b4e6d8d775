"""The `schedule_policy` bodies that a search may pick beside the default one.

Each reads `cached_block_len, topk_val, topk_ratio, block_reserved_bos, block_reserved_eos` and returns
the number of blocks that a row keeps, reserved ones included.
"""

from __future__ import annotations

ADAPTIVE = """\
int base = topk_val + block_reserved_bos + block_reserved_eos;
return min(base + cached_block_len / 64, 256);
"""
"""One more block for every 64 cached ones: the published length-adaptive example."""

SQUARE_ROOT = """\
int base = topk_val + block_reserved_bos + block_reserved_eos;
return base + (int)sqrtf((float)cached_block_len);
"""
"""The budget grows with the square root of the context: between a fixed count and a fixed share."""

POLICIES: dict[str, str] = {"adaptive": ADAPTIVE, "square_root": SQUARE_ROOT}
"""Every body by its name."""
