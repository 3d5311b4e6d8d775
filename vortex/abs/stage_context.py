"""What a running engine tells one stage of a flow: sizes of its cache and of the machine, and the traced
program as lists."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from vortex.abs.context import ContextBase
from vortex.abs.graph_lists import GraphLists, GraphTensor
from vortex.errors import ConfigError
from vortex.graph.canonical import tensor_keys
from vortex.graph.model import FlowGraph, Node, Stage

if TYPE_CHECKING:
    import torch

    from vortex.config import Dtype, VortexConfig
    from vortex.targets.base import Program


class StageContext(ContextBase):
    """One mutable instance a stage. Its attributes are 0, "" or empty until `create`.

    Sizes are in tokens, pages (of the engine) and blocks (of the flow). The dummy page that SGLang puts in
    front of its pool is not counted.
    """

    stage: ClassVar[Stage]

    def __init__(self) -> None:
        self.name = str(self.stage)
        self.mode: Literal["profile", "execute"] = "profile"
        """"profile" until the flow is traced and the engine's sizes are known, then "execute"."""
        self.sparse_attention_name = ""
        self.impl_backend = "triton"
        self.max_new_tokens_per_batch = 0
        """Most tokens whose keys and values one forward pass writes."""
        self.page_size = 0
        self.total_num_pages = 0
        self.block_size = 0
        self.num_blocks_per_page = 0
        self.total_num_blocks = 0
        self.head_dim = 0
        """Features of a key; of an MLA latent with its RoPE part."""
        self.head_num = 0
        """Kv heads of this rank."""
        self.num_sms = 0
        """Multiprocessors of the GPU; 0 on a CPU."""
        self.tensor_list: list[GraphTensor] = []
        self.op_list: list[Node] = []
        self.output_tensor_to_op_list: list[int | None] = []
        self.op_to_input_tensor_list: list[list[int]] = []
        self.op_to_output_tensor_list: list[list[int]] = []
        self.tensor_id_to_tensor_name_map: dict[int, str] = {}
        """What each tensor is called in the generated source; in a program that is not generated, or where
        the source does without the tensor, its name in `tensor_list`."""
        self.compilation_header_lines: list[str] = []
        """The imports of the generated module."""
        self.auxilary_func_def_lines: list[str] = []
        """The functions that its kernels call, line by line."""
        self.compilation_cache_dir: str | None = None
        """Where generated modules and compiled libraries are kept; what the config says where nothing is
        generated."""
        self._dtype: Dtype = "bfloat16"
        self._created = False

    @property
    def vortex_dtype(self) -> torch.dtype:
        """The number format of fields and intermediates."""
        from vortex.runtime.dtypes import TORCH_DTYPES

        return TORCH_DTYPES[self._dtype]

    def create(self, parent: Any, model_runner: Any, *, overwrite: bool = False) -> None:
        """Fills the context, once.

        parent: has `config` (VortexConfig) and `graph` (FlowGraph), or a `flow` that has been initialised;
        and the `program` that runs, from which the attributes about generated code are taken.
        model_runner: SGLang's, after its memory pools exist. Raises RuntimeError when it is filled already
        and `overwrite` is not set; ConfigError names an attribute that is missing, and leaves all as it was.
        """
        if self._created and not overwrite:
            raise RuntimeError(
                f"the {self.stage} context is filled already: pass overwrite=True to refill it"
            )
        config: VortexConfig = _need(parent, "parent", "config")
        graph = _graph(parent)
        page = int(_need(model_runner, "model_runner", "page_size"))
        block = config.block_size or page
        if page % block:
            raise ConfigError(f"block_size={block} does not divide the engine's page_size={page}")
        pages = int(_need(model_runner, "model_runner", "max_total_num_tokens")) // page
        head_dim, head_num = _heads(graph, model_runner)
        values = {
            "mode": "execute",
            "sparse_attention_name": config.module_name or "",
            "impl_backend": config.impl_backend,
            "max_new_tokens_per_batch": _most_new_tokens(model_runner),
            "page_size": page,
            "total_num_pages": pages,
            "block_size": block,
            "num_blocks_per_page": page // block,
            "total_num_blocks": pages * (page // block),
            "head_dim": head_dim,
            "head_num": head_num,
            "num_sms": _multiprocessors(model_runner),
            "_dtype": config.dtype,
            "_created": True,
        }
        lists = GraphLists(graph, self.stage)
        made = _generated(getattr(parent, "program", None), graph, self.stage, lists)
        values |= {
            "tensor_list": lists.tensors,
            "op_list": lists.ops,
            "output_tensor_to_op_list": lists.makers,
            "op_to_input_tensor_list": lists.inputs,
            "op_to_output_tensor_list": lists.outputs,
            "tensor_id_to_tensor_name_map": made.names,
            "compilation_header_lines": made.header,
            "auxilary_func_def_lines": made.functions,
            "compilation_cache_dir": made.folder or config.compilation_cache_dir,
        }
        vars(self).update(values)


@dataclass(frozen=True)
class _Generated:
    """What a code generator has made of a flow: names of the tensors by id, lines, where it keeps them."""

    names: dict[int, str]
    header: list[str] = field(default_factory=list)
    functions: list[str] = field(default_factory=list)
    folder: str | None = None


def _generated(program: Program | None, graph: FlowGraph, stage: Stage, lists: GraphLists) -> _Generated:
    names = {at: tensor.name for at, tensor in enumerate(lists.tensors)}
    if program is None:
        return _Generated(names)
    from vortex.build_cache import cache_folder
    from vortex.targets.triton import TritonProgram

    if not isinstance(program, TritonProgram):
        return _Generated(names)
    keys, module = tensor_keys(graph)[stage], program.module
    in_source = tensor_keys(program.graph)[stage]
    called = {in_source[ref]: name for ref, name in module.tensor_names[stage].items()}
    names |= {at: called[keys[ref]] for at, ref in enumerate(lists.refs) if keys[ref] in called}
    folder = str(cache_folder(program.cache_dir))
    return _Generated(names, list(module.header_lines), list(module.function_lines), folder)


def _need(owner: object, name: str, attribute: str) -> Any:
    value = getattr(owner, attribute, None)
    if value is None:
        raise ConfigError(f"{name}.{attribute} is missing: create() needs it, got {type(owner).__name__}")
    return value


def _graph(parent: object) -> FlowGraph:
    own = getattr(parent, "graph", None)
    graph = own if own is not None else getattr(getattr(parent, "flow", None), "graph", None)
    if not isinstance(graph, FlowGraph):
        raise ConfigError(
            "parent.graph is missing: create() needs the traced graph, or parent.flow after initialize()"
        )
    return graph


def _heads(graph: FlowGraph, runner: object) -> tuple[int, int]:
    """Features of a key, and kv heads of this rank."""
    model = _need(runner, "model_runner", "model_config")
    where = "model_runner.model_config"
    if graph.kind == "mla":
        return int(_need(model, where, "kv_lora_rank")) + int(_need(model, where, "qk_rope_head_dim")), 1
    args = _need(runner, "model_runner", "server_args")
    ranks = int(_need(args, "model_runner.server_args", "tp_size"))
    return int(_need(model, where, "head_dim")), int(_need(model, where, "get_num_kv_heads")(ranks))


def _most_new_tokens(runner: object) -> int:
    """A chunk where prefill is chunked (its size is -1 where it is not), otherwise a whole prefill batch, in
    which one prompt may be as long as the context. A decode step writes one token a request."""
    args, model = (_need(runner, "model_runner", name) for name in ("server_args", "model_config"))
    prefill = int(getattr(args, "chunked_prefill_size", None) or -1)
    if prefill < 1:
        longest = int(_need(model, "model_runner.model_config", "context_len"))
        prefill = max(longest, int(_need(args, "model_runner.server_args", "max_prefill_tokens")))
    return max(prefill, int(getattr(runner, "max_running_requests", None) or 0))


def _multiprocessors(runner: object) -> int:
    device = str(_need(runner, "model_runner", "device"))
    if not device.startswith("cuda"):
        return 0
    import torch

    index = getattr(runner, "gpu_id", None)
    return int(torch.cuda.get_device_properties(index).multi_processor_count)
