"""Prompts that are prefilled once, kept on disk in the layout of the pool, and memory-mapped by every
worker.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO, Literal

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict
from transformers import PreTrainedModel

from vortex.engine.hf.geometry import ModelShape
from vortex.engine.hf.prefill import prefill
from vortex.errors import ConfigError
from vortex.runtime.pool import PAGE, KVPool, PageTable

META = "store.json"
StoredDtype = Literal["float32", "bfloat16", "float16"]


class StoredPrompt(BaseModel):
    """A prompt's tokens, the page where its rows start, pages of a row, and the greedy token after it."""

    model_config = ConfigDict(frozen=True)

    tokens: tuple[int, ...]
    page: int
    pages: int
    first: int


class StoreMeta(BaseModel):
    """The index of a store, written as JSON. `kv_lora_rank` > 0: latents of MLA, `head_dim` numbers each."""

    model_config = ConfigDict(frozen=True)

    version: Literal[1] = 1
    layers: int
    heads: int
    group: int
    head_dim: int
    kv_lora_rank: int = 0
    dtype: StoredDtype
    page: int = PAGE
    prompts: tuple[StoredPrompt, ...]

    @property
    def files(self) -> tuple[tuple[str, ...], ...]:
        """The files of each layer, one for each tensor of its pool."""
        parts = ("latent",) if self.kv_lora_rank else ("k", "v")
        return tuple(tuple(f"layer{layer}.{part}" for part in parts) for layer in range(self.layers))

    @property
    def pages(self) -> int:
        return sum(prompt.pages for prompt in self.prompts) * self.heads


class PromptStore:
    """An opened store. Several processes may open one at the same time and share the page cache.

    The mapping is copy-on-write: a decode writes its new tokens into its own process only. Two decodes must
    not use one opened store at the same time; open it twice instead.
    """

    def __init__(self, path: Path, meta: StoreMeta, pools: tuple[KVPool, ...]) -> None:
        self.path, self.meta, self.pools = path, meta, pools

    def __len__(self) -> int:
        return len(self.meta.prompts)

    @property
    def prompts(self) -> tuple[StoredPrompt, ...]:
        return self.meta.prompts

    def room(self, index: int) -> int:
        """New tokens that prompt `index` has room for."""
        prompt = self.prompts[index]
        return prompt.pages * PAGE - len(prompt.tokens)

    def pages(self, rows: Sequence[int]) -> PageTable:
        """Pages of the prompts `rows`, one row per prompt x kv head."""
        heads = np.arange(self.meta.heads)
        counts = np.array([self.prompts[row].pages for row in rows], dtype=np.int64)
        starts = np.array([self.prompts[row].page for row in rows], dtype=np.int64)
        return PageTable.contiguous(
            (starts[:, None] + counts[:, None] * heads).ravel(), counts.repeat(len(heads))
        )

    @classmethod
    def build(
        cls,
        path: str | Path,
        model: PreTrainedModel,
        prompts: Sequence[Sequence[int]],
        room: int | Sequence[int],
    ) -> PromptStore:
        """Prefill `prompts` (token ids) with space for `room` new tokens each, then open the store.

        The folder appears complete or not at all. Where another process was faster, its store is opened.
        """
        path = Path(path)
        if (path / META).exists():
            return cls.open(path)
        if not prompts or not all(prompts):
            raise ConfigError("a prompt store needs at least one prompt, and every prompt at least one token")
        path.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
        try:
            _write(folder, model, prompts, [room] * len(prompts) if isinstance(room, int) else room)
            folder.chmod(0o755)
            try:
                folder.rename(path)
            except OSError:
                if not (path / META).exists():
                    raise
            _sync(path.parent)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        return cls.open(path)

    @classmethod
    def open(cls, path: str | Path) -> PromptStore:
        """Map a store. FileNotFoundError where there is none, ConfigError where its page size is not ours."""
        path = Path(path)
        meta = StoreMeta.model_validate_json((path / META).read_text())
        if meta.page != PAGE:
            raise ConfigError(
                f"{path} has pages of {meta.page} tokens, this version needs {PAGE}: build it again"
            )
        pools = tuple(
            KVPool(*(_map(path / name, meta) for name in names), kv_lora_rank=meta.kv_lora_rank)
            for names in meta.files
        )
        return cls(path, meta, pools)


def _map(path: Path, meta: StoreMeta) -> torch.Tensor:
    size = meta.pages * PAGE * meta.head_dim
    dtype: torch.dtype = getattr(torch, meta.dtype)
    data = torch.from_file(str(path), shared=False, size=size, dtype=dtype)
    return data.view(-1, meta.head_dim)


def _write(
    folder: Path, model: PreTrainedModel, prompts: Sequence[Sequence[int]], room: Sequence[int]
) -> None:
    shape = ModelShape.of(model)
    empty = StoreMeta.model_validate(
        {
            "layers": shape.layers,
            "heads": shape.heads,
            "group": shape.group,
            "head_dim": shape.head_dim,
            "kv_lora_rank": shape.kv_lora_rank,
            "dtype": str(model.dtype).removeprefix("torch."),
            "prompts": (),
        }
    )
    stored: list[StoredPrompt] = []
    page = 0
    files = [(folder / name).open("wb") for names in empty.files for name in names]
    token_bytes = shape.head_dim * model.dtype.itemsize
    try:
        for prompt, extra in zip(prompts, room, strict=True):
            done = prefill(model, prompt)
            pages = -(-(len(prompt) + extra) // PAGE)
            parts = [part for layer in done.layers for part in layer]
            for file, part in zip(files, parts, strict=True):
                for head, rows in enumerate(part):
                    file.seek((page + head * pages) * PAGE * token_bytes)
                    file.write(memoryview(rows.contiguous().cpu().view(torch.uint8).numpy()).cast("B"))
            stored.append(StoredPrompt(tokens=tuple(prompt), page=page, pages=pages, first=done.first))
            page += pages * shape.heads
        for file in files:
            file.truncate(page * PAGE * token_bytes)
            _flush(file)
    finally:
        for file in files:
            file.close()
    meta = empty.model_copy(update={"prompts": tuple(stored)})
    with (folder / META).open("wb") as file:
        file.write(meta.model_dump_json().encode())
        _flush(file)
    _sync(folder)


def _flush(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())


def _sync(folder: Path) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
