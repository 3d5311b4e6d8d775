"""What every module of this stand-in offers: functions that raise."""

from __future__ import annotations

from collections.abc import Callable
from typing import NoReturn


def __getattr__(name: str) -> Callable[..., NoReturn]:
    if name.startswith("__"):
        raise AttributeError(name)

    def function(*args: object, **kwargs: object) -> NoReturn:
        raise NotImplementedError(f"torchvision's {name} is not installed on this machine")

    return function
