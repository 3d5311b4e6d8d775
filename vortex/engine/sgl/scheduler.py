"""What a scheduler process does for the driver: swap the flow of a running engine. Called by SGLang."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vortex.config import VortexConfig
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
    failed = None
    try:
        _prepare(self, settings)
    except Exception as error:
        failed = f"{type(error).__name__}: {error}" if not isinstance(error, ConfigError) else str(error)
    reasons = [reason for reason in _gather(self, failed) if reason is not None]
    rank = rank_of(self)
    if reasons:
        if rank is not None:
            rank.drop()
        raise ConfigError(reasons[0])
    assert rank is not None
    rank.switch()


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


def _gather(scheduler: Any, failed: str | None) -> list[str | None]:
    """What went wrong on each rank."""
    import torch.distributed

    group = scheduler.tp_group.cpu_group
    reasons: list[str | None] = [None] * torch.distributed.get_world_size(group)
    torch.distributed.all_gather_object(reasons, failed, group=group)
    return reasons
