"""Wrong flows over latents."""

from __future__ import annotations

from tests.vortex.flow.wrong_programs.program import HERE, WrongProgram, changed


def mla(
    indexer: str = "pass", cache: str = "pass", field: str = '"c": (1, kv_lora_rank)', mark: str = ""
) -> str:
    """A flow over latents; c is a centroid, the further field is `field`."""
    return f"""from vortex_torch.flow import vFlowMLA, register
from vortex_torch.indexer import GeMM, Load, Mean, Save, topK
import vortex_torch.cache as C

@register("tested")
class Tested(vFlowMLA):
    def create_cache(self, block_size, kv_lora_rank, qk_rope_head_dim):{mark}
        return {{"centroid": (1, kv_lora_rank + qk_rope_head_dim), {field}}}

    def forward_cache(self, cache, loc, ctx):
        C.Mean()(cache["latent"], cache["centroid"], loc=loc, ctx=ctx)
        {cache}

    def forward_indexer(self, q, o, cache, ctx):
        {indexer}
        topK()(GeMM()(Mean()(q, ctx=ctx), cache["centroid"], ctx=ctx), o, ctx=ctx)
"""


LATENT = "kv_lora_rank + qk_rope_head_dim"
PROGRAMS = [
    WrongProgram(
        "an MLA flow with k",
        mla(field='"k": (1, kv_lora_rank)', mark=HERE),
        None,
        "create_cache must not declare 'k' key: the engine provides latent",
        "cache['latent'], which is [kv_c | k_pe]",
    ),
    WrongProgram(
        "an MLA flow with latent",
        mla(field='"latent": (1, kv_lora_rank)', mark=HERE),
        None,
        "must not declare 'latent' key",
        "cache['latent'], which is [kv_c | k_pe]",
    ),
    WrongProgram(
        "an MLA flow with kv_c",
        mla(field='"kv_c": (1, kv_lora_rank)', mark=HERE),
        None,
        "must not declare 'kv_c' key",
        "cache['latent'], which is [kv_c | k_pe]",
    ),
    WrongProgram(
        "an MLA flow with k_pe",
        mla(field='"k_pe": (1, qk_rope_head_dim)', mark=HERE),
        None,
        "must not declare 'k_pe' key",
        "cache['latent'], which is [kv_c | k_pe]",
    ),
    WrongProgram(
        "an MLA flow that reads k",
        mla(indexer=f"GeMM()(q, cache['k'], ctx=ctx){HERE}"),
        None,
        "unknown cache field 'k' (known: c, centroid, latent)",
        "cache['latent'], which is [kv_c | k_pe]",
    ),
    WrongProgram(
        "an MLA flow that summarises kv_c",
        mla(cache=f"C.Mean()(cache['kv_c'], loc=loc, ctx=ctx){HERE}"),
        None,
        "unknown cache field 'kv_c'",
        "cache['latent'], which is [kv_c | k_pe]",
    ),
    WrongProgram(
        "an MLA query against a part",
        mla(indexer=f"GeMM()(q, cache['c'], ctx=ctx){HERE}"),
        "GeMM",
        f"last dimension mismatch: {LATENT} and kv_lora_rank",
        "contracts the last dims",
        (f"x [1, group, {LATENT}]", "y [S, 1, kv_lora_rank]"),
    ),
    WrongProgram(
        "an MLA flow that saves the latent",
        mla(indexer=f"Save()(Load()(cache['centroid'], ctx=ctx), cache['latent'], ctx=ctx){HERE}"),
        "Save",
        "the field 'latent' belongs to the engine",
        "Declare a field in create_cache",
        (f"x [S, 1, {LATENT}]",),
    ),
    WrongProgram(
        "an MLA flow with the sizes of others",
        changed("block_size, kv_lora_rank, qk_rope_head_dim)", "block_size, head_dim)", mla(mark=HERE)),
        None,
        "create_cache takes (self, block_size, head_dim)",
        "Define create_cache(self, block_size, kv_lora_rank, qk_rope_head_dim)",
    ),
]
