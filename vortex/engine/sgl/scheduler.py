"""What a scheduler process does for the driver: swap the flow of a running engine. Called by SGLang."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from vortex.config import VortexConfig
from vortex.engine.sgl.graphs import recapture
from vortex.errors import ConfigError

if TYPE_CHECKING:
    from vortex.engine.sgl.rank import SparseRank

BUSY = "a flow cannot be swapped while requests are running: wait for them"


def rank_of(scheduler: Any) -> SparseRank | None:
    """What is sparse on this scheduler's rank; None where Vortex is not attached."""
    from vortex.engine.sgl.backend import VortexBackend

    backend = getattr(scheduler.tp_worker.model_runner, "attn_backend", None)
    return backend.rank if isinstance(backend, VortexBackend) else None


def deploy(self: Any, settings: str | None = None) -> None:
    """A method of SGLang's Scheduler, called on every rank by `control.deploy`. All ranks go on with the new
    flow, or all with the old one. Raises ConfigError."""
    rank, runner = rank_of(self), self.tp_worker.model_runner
    failed = _failed(self, lambda: _prepare(self, settings))
    if failed is None:
        assert rank is not None
        rank.switch()
        failed = _failed(self, lambda: recapture(runner))
        if failed is not None:
            rank.switch()
            recapture(runner)
    if rank is not None:
        rank.drop()
    if failed is not None:
        raise ConfigError(failed)


def keep_apart(scheduler: Any, recv_req: Any) -> None:
    """Before SGLang takes a request: where the flow saves fields, requests share no prefixes."""
    rank = rank_of(scheduler)
    if rank is not None and rank.keeps_apart:
        recv_req.extra_key = f"{recv_req.extra_key or ''}/{next(rank.requests)}"


def _prepare(scheduler: Any, settings: str | None) -> None:
    rank = rank_of(scheduler)
    if rank is None:
        raise ConfigError("the engine is dense: start it with vortex=VortexConfig(...)")
    if not scheduler.is_fully_idle():
        raise ConfigError(BUSY)
    if scheduler.weight_updater.offload_tags:  # what is cached could not be read
        raise ConfigError("the engine's memory is released: call resume_memory_occupation first")
    rank.prepare(None if settings is None else VortexConfig.model_validate_json(settings))


def _failed(scheduler: Any, act: Callable[[], None]) -> str | None:
    """What went wrong with `act`, which all ranks do together, on the first rank where it did."""
    import torch.distributed

    failed = None
    try:
        act()
    except Exception as error:
        failed = str(error) if isinstance(error, ConfigError) else f"{type(error).__name__}: {error}"
    group = scheduler.tp_group.cpu_group
    reasons: list[str | None] = [None] * torch.distributed.get_world_size(group)
    torch.distributed.all_gather_object(reasons, failed, group=group)
    return next((reason for reason in reasons if reason is not None), None)
