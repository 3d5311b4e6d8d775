"""The entry point of group `sglang.srt.plugins`: SGLang calls `register` in its main process and in every
scheduler process. Without a VortexConfig none of the hooks changes anything.

SGLang logs what goes wrong in a plugin and goes on without it. Therefore the main process asks every
scheduler whether it is sparse before the engine is handed out, and stops it if one is not.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from typing import Any

from vortex.errors import ConfigError

_SRT = "sglang.srt"
SERVER_ARGS = f"{_SRT}.server_args.ServerArgs"
SCHEDULER = f"{_SRT}.managers.scheduler.Scheduler"


def register() -> None:
    """Register the hooks; SGLang applies them."""
    from sglang.srt.managers.scheduler import Scheduler
    from sglang.srt.plugins.hook_registry import HookRegistry, HookType

    from vortex.engine.sgl import scheduler

    for target, hook in BEFORE.items():
        HookRegistry.register(target, hook, HookType.BEFORE)
    for target, hook in AROUND.items():
        HookRegistry.register(target, hook, HookType.AROUND)
    for target, hook in AFTER.items():
        HookRegistry.register(target, hook, HookType.AFTER)
    Scheduler.vortex_deploy = scheduler.deploy


def check_attached() -> None:
    """Raises ConfigError where a hook could not be applied in this process."""
    from sglang.srt.plugins.hook_registry import HookRegistry

    missing = [name for name in (*BEFORE, *AROUND, *AFTER) if name not in HookRegistry._patched]
    if missing:
        raise ConfigError(f"vortex cannot attach to {', '.join(missing)}: this needs SGLang 0.5.16")


def _construct(original: Callable[..., None], self: Any, *args: Any, **options: Any) -> None:
    from vortex.engine.sgl.arguments import for_sglang, is_ours

    if any(is_ours(name) for name in options):
        check_attached()
        options = for_sglang(options)
    original(self, *args, **options)


def _add_cli_args(result: None, parser: Any) -> None:
    parser.add_argument(
        "--vortex-config",
        default=None,
        help="Sparse decode attention: the fields of a VortexConfig as JSON, or a file with them.",
    )


def _from_cli_args(original: Callable[..., Any], cls: Any, args: Any) -> Any:
    from vortex.engine.sgl.arguments import for_sglang

    if getattr(args, "vortex_config", None) is not None:
        try:
            check_attached()
            vars(args).update(for_sglang(vars(args)))
        except ConfigError as error:  # of a command line: no traceback
            raise SystemExit(f"--vortex-config: {error}") from None
    return original(cls, args)


def _wrap(result: Any, runner: Any, full_attn_backend: Any) -> Any:
    from vortex.engine.sgl.rank import SparseRank, config_of

    config = config_of(runner.model_config)
    if config is None or runner.is_draft_worker:
        return None
    from vortex.engine.sgl.backend import VortexBackend

    if result is not full_attn_backend:
        raise ConfigError(
            f"{type(result).__name__} serves this model: its layers are not all plain attention"
        )
    pool = runner.token_to_kv_pool
    if not hasattr(pool, "vortex"):  # several backends may share one pool
        pool.vortex = SparseRank(runner, config)
    return VortexBackend(result, pool.vortex)


def _count_summaries(result: int, self: Any, kvc: Any, num_layers: int) -> int | None:
    from vortex.engine.sgl.rank import RankShape, bytes_per_token, config_of, ranks

    config = config_of(kvc.model_config)
    if config is None or kvc.is_draft_worker:
        return None
    shape = RankShape.of(kvc.model_config, kvc.use_mla_backend, ranks())
    return result + bytes_per_token(config, shape, kvc.page_size, num_layers)


def _say_hello(result: dict[str, Any], self: Any) -> dict[str, Any] | None:
    from vortex.engine.sgl.scheduler import rank_of

    rank = rank_of(self)
    if rank is None:
        return None
    return {**result, "vortex": rank.report().model_dump()}


def _tell_counters(result: Any, self: Any, recv_req: Any) -> None:
    from vortex.engine.sgl.scheduler import rank_of

    rank = rank_of(self)
    if rank is not None:
        result.internal_state["vortex"] = rank.report().model_dump()


def _check_ranks(result: Any, cls: Any, *args: Any, **kwargs: Any) -> None:
    """Stop an engine that was to be sparse and has a scheduler that is not."""
    server_args = kwargs.get("server_args", args[0] if args else None)
    if "vortex" not in json.loads(getattr(server_args, "json_model_override_args", None) or "{}"):
        return
    infos = result[3].scheduler_infos
    silent = [rank for rank, info in enumerate(infos) if "vortex" not in info]
    if silent:
        from sglang.srt.utils import kill_process_tree

        kill_process_tree(os.getpid(), include_parent=False)
        raise ConfigError(
            f"the scheduler of rank {silent[0]} did not attach Vortex: is vortex installed there (the entry "
            "point of group sglang.srt.plugins), and allowed by SGLANG_PLUGINS?"
        )


def _keep_apart(self: Any, recv_req: Any, *args: Any, **kwargs: Any) -> None:
    from vortex.engine.sgl.scheduler import keep_apart

    keep_apart(self, recv_req)


BEFORE: dict[str, Callable[..., Any]] = {f"{SCHEDULER}.handle_generate_request": _keep_apart}
AROUND: dict[str, Callable[..., Any]] = {
    f"{SERVER_ARGS}.__init__": _construct,
    f"{SERVER_ARGS}.from_cli_args": _from_cli_args,
}
AFTER: dict[str, Callable[..., Any]] = {
    f"{SERVER_ARGS}.add_cli_args": _add_cli_args,
    f"{_SRT}.layers.attention.attention_registry.attn_backend_wrapper": _wrap,
    f"{_SRT}.model_executor.pool_configurator.DefaultPoolConfigurator._compute_cell_size": _count_summaries,
    f"{SCHEDULER}.get_init_info": _say_hello,
    f"{SCHEDULER}.get_internal_state": _tell_counters,
    f"{_SRT}.entrypoints.engine.Engine._launch_subprocesses": _check_ranks,
}
