"""Import alias: `vortex_torch` is `vortex`, submodules included, so published flow files run unmodified.

`import vortex_torch.flow` gives the module object `vortex.flow` itself; there is one implementation.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from importlib.abc import InspectLoader, Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import CodeType, ModuleType

import vortex


def _real(alias: str) -> ModuleSpec | None:
    return find_spec(f"vortex{alias.removeprefix(__name__)}")


class _Alias(MetaPathFinder, Loader):
    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if not fullname.startswith(f"{__name__}."):
            return None
        real = _real(fullname)
        package = real is not None and real.submodule_search_locations is not None
        return ModuleSpec(fullname, self, is_package=package)

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        module = importlib.import_module(f"vortex{spec.name.removeprefix(__name__)}")
        spec.loader_state = module.__spec__
        return module

    def get_code(self, fullname: str) -> CodeType | None:
        """For `python -m vortex_torch.<module>`."""
        real = _real(fullname)
        return real.loader.get_code(real.name) if real and isinstance(real.loader, InspectLoader) else None

    def exec_module(self, module: ModuleType) -> None:
        alias = module.__spec__  # the import system has put the alias's own there
        if alias is not None and alias.loader is self:
            module.__spec__ = alias.loader_state


sys.meta_path.insert(0, _Alias())
sys.modules[__name__] = vortex
