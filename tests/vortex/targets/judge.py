"""Numbers and blocks that a target gives, against what it may give."""

from __future__ import annotations

import torch

from tests.vortex.targets.tolerance import ATTENTION, Range
from vortex.runtime.pool import KVPool


def same(what: str, found: torch.Tensor, allowed: Range) -> None:
    """Raises AssertionError with the first number that is off."""
    outside = allowed.outside(found)
    if outside.any():
        at = tuple(int(index) for index in outside.nonzero()[0])
        low, exact, high = (float(x[at]) for x in (allowed.low, allowed.exact, allowed.high))
        raise AssertionError(
            f"{what}: {int(outside.sum())} of {outside.numel()} numbers are off; at {list(at)} "
            f"{float(found[at])!r} for {exact!r}, allowed {low!r} to {high!r}"
        )


def attended(
    what: str,
    found: torch.Tensor,
    right: torch.Tensor,
    q: torch.Tensor,
    pool: KVPool,
    scale: float,
    stored: str,
) -> float:
    """The largest part of the tolerance that an output of attention takes up; AssertionError above 1.

    A relative change of a logit by u changes a weight by a factor of exp(u |logit|) at most.
    """
    keys, value = pool.k.float().flatten(0, -2), float(pool.v.float().abs().max())
    logit = scale * float((q.float().flatten(0, -2) @ keys.T).abs().max())
    allowed = ATTENTION[stored] * (1 + logit) * value
    worst = float((found.float().cpu() - right.float()).abs().max())
    assert worst <= allowed, f"{what}: off by {worst}, allowed {allowed}"
    assert found.dtype == right.dtype
    return worst / allowed


def certain_and_possible(allowed: Range, row: int, valid: torch.Tensor, k: int) -> tuple[set[int], set[int]]:
    """Positions of a row that are among its best `k` whatever the scores are within their ranges, and those
    that may be. `valid [blocks]`: where there is a choice."""
    places = valid.nonzero()[:, 0].tolist()
    upper, lower = allowed.best(True)[row][valid], allowed.best(False)[row][valid]
    rivals = (upper[None, :] >= lower[:, None]).sum(1) - 1
    above = (lower[None, :] > upper[:, None]).sum(1)
    certain = {place for place, count in zip(places, rivals.tolist(), strict=True) if count < k}
    return certain, {place for place, count in zip(places, above.tolist(), strict=True) if count < k}


def is_exact(allowed: Range, row: int, valid: torch.Tensor) -> bool:
    """Whether a target has no freedom in the scores of a row, so that the rule for ties decides."""
    alike = (allowed.low == allowed.high) | allowed.exact.isnan()
    return bool((alike & allowed.settled)[row][valid].all())
