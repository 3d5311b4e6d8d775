"""Import alias: `vortex_torch` is `vortex`, submodules included, so published flow files run unmodified.

`import vortex_torch.flow` gives the module object `vortex.flow` itself; there is one implementation.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

import vortex


class _Alias(MetaPathFinder, Loader):
    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        return ModuleSpec(fullname, self) if fullname.startswith(f"{__name__}.") else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        module = importlib.import_module(f"vortex{spec.name.removeprefix(__name__)}")
        spec.loader_state = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        alias = module.__spec__  # the import system has put the alias's own there
        if alias is not None and alias.loader is self:
            module.__spec__ = alias.loader_state


sys.meta_path.insert(0, _Alias())
sys.modules[__name__] = vortex
