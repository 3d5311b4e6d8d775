"""The numbers beside the flow: one choice of them (`Knobs`) and where they may be chosen from
(`KnobSpace`)."""

from __future__ import annotations

import random
from typing import Annotated, Any, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from search_spaces.policies import POLICIES

_T = TypeVar("_T")

KNOB_NAMES = ("block_size", "topk_val", "topk_ratio", "bos", "eos", "layers_skip", "policy")


class Knobs(BaseModel):
    """One choice of every knob. `bos` and `eos` are the config's `block_reserved_bos` and
    `block_reserved_eos`.

    `policy` is a `schedule_policy` body, or None for the default one. It is kept as written; the
    candidate's hash uses its canonical form. Raises pydantic's ValidationError, which names the knob, on
    a value that no config takes.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    block_size: Annotated[int, Field(ge=1, le=1024)] = 16
    topk_val: Annotated[int, Field(ge=1, le=1 << 20)] = 30
    topk_ratio: Annotated[float, Field(ge=0.0, le=1.0)] = 0.0
    bos: Annotated[int, Field(ge=1, le=1024)] = 1
    eos: Annotated[int, Field(ge=1, le=1024)] = 1
    layers_skip: tuple[Annotated[int, Field(ge=0, le=1023)], ...] = ()
    policy: Annotated[str, Field(max_length=8192)] | None = None

    @field_validator("block_size")
    @classmethod
    def _power_of_two(cls, value: int) -> int:
        if value & (value - 1):
            raise ValueError(f"block_size must be a power of two, got {value}")
        return value

    @field_validator("layers_skip", mode="before")
    @classmethod
    def _no_layers(cls, value: Any) -> Any:
        return () if value is None else value

    @field_validator("layers_skip")
    @classmethod
    def _as_set(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(sorted(set(value)))

    @field_validator("policy")
    @classmethod
    def _blank_policy(cls, value: str | None) -> str | None:
        return value if value and value.strip() else None

    def with_(self, **changes: Any) -> Knobs:
        """A checked copy with some knobs changed."""
        return Knobs(**{**self.model_dump(), **changes})


class KnobSpace(BaseModel):
    """The values that a search tries. `topk_val` is a range walked on a log scale, every other knob a menu.

    most_tokens: bound on topk_val x block_size, None for none. layers: of the model, 0 where unknown.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    block_size: tuple[int, ...] = (8, 16, 32, 64)
    topk_low: int = 1
    topk_high: int = 64
    topk_ratio: tuple[float, ...] = (0.0, 1 / 64, 1 / 32, 1 / 16, 1 / 8)
    bos: tuple[int, ...] = (1, 2)
    eos: tuple[int, ...] = (1, 2, 4)
    layers_skip: tuple[tuple[int, ...], ...] = ((),)
    most_tokens: int | None = None
    layers: int = 0
    policy: tuple[str | None, ...] = (None, *POLICIES.values())

    @model_validator(mode="after")
    def _not_empty(self) -> Self:
        for name in ("block_size", "topk_ratio", "bos", "eos", "layers_skip", "policy"):
            if not getattr(self, name):
                raise ValueError(f"the menu of {name} is empty; give at least one value")
        if not 1 <= self.topk_low <= self.topk_high:
            raise ValueError(f"topk_val needs 1 <= low <= high, got {self.topk_low}..{self.topk_high}")
        return self

    @classmethod
    def for_model(cls, layers: int, length: int) -> KnobSpace:
        """The space for a model of `layers` layers measured at `length` tokens.

        Budgets stop at half of the prompt: above that sparsity saves little. Only the first layers, or
        the first and the last, may be dense, the places where dense layers are known to help most.
        """
        most = max(64, length // 2)
        top = most // 8
        skips: list[tuple[int, ...]] = [()]
        if layers >= 4:
            skips += [(0,)]
        if layers >= 16:
            skips += [(0, 1), (0, layers - 1)]
        return cls(topk_high=top, layers_skip=tuple(skips), most_tokens=most, layers=layers)

    def clipped(self, knobs: Knobs) -> Knobs:
        """The knobs with `topk_val` inside the range, and inside `most_tokens` for their block size."""
        high = self.topk_high
        if self.most_tokens is not None:
            high = min(high, self.most_tokens // knobs.block_size)
        topk = max(self.topk_low, min(knobs.topk_val, high))
        return knobs if topk == knobs.topk_val else knobs.with_(topk_val=topk)

    def sample(self, rng: random.Random) -> Knobs:
        """An independent draw: log-uniform over topk_val, no policy and no skipped layer half of the
        time."""
        drawn = Knobs(
            block_size=rng.choice(self.block_size),
            topk_val=self._topk(rng),
            topk_ratio=_mostly_first(rng, self.topk_ratio),
            bos=_mostly_first(rng, self.bos),
            eos=rng.choice(self.eos),
            layers_skip=_mostly_first(rng, self.layers_skip),
            policy=_mostly_first(rng, self.policy),
        )
        return self.clipped(drawn)

    def neighbour(self, knobs: Knobs, rng: random.Random) -> Knobs:
        """A copy that differs in one or two knobs: topk_val by a factor of at most two, menus by one
        step."""
        changed = knobs
        for name in rng.sample(self._movable(), k=min(len(self._movable()), rng.choice((1, 1, 2)))):
            changed = self.clipped(self._step(changed, name, rng))
        return changed if changed != knobs else self.clipped(self._step(knobs, "topk_val", rng))

    def problems(self, knobs: Knobs) -> list[str]:
        """Why the knobs are outside this space, one line each; any policy and any ratio up to the largest
        is inside."""
        found = [
            f"{name} {_show(getattr(knobs, name))} is not one of {[_show(x) for x in getattr(self, name)]}"
            for name in ("block_size", "bos", "eos", "layers_skip")
            if getattr(knobs, name) not in getattr(self, name)
        ]
        if not self.topk_low <= knobs.topk_val <= self.topk_high:
            found.append(f"topk_val {knobs.topk_val} is not in {self.topk_low}..{self.topk_high}")
        if knobs.topk_ratio > max(self.topk_ratio):
            found.append(f"topk_ratio {knobs.topk_ratio:g} is above {max(self.topk_ratio):g}")
        return found

    def describe(self) -> str:
        """One line a knob, for a prompt or a report."""
        lines = [
            f"block_size: one of {list(self.block_size)} tokens",
            f"topk_val: {self.topk_low} to {self.topk_high} blocks"
            + (f", at most {self.most_tokens:,} tokens" if self.most_tokens else ""),
            f"topk_ratio: 0 to {max(self.topk_ratio):g}",
            f"bos: one of {list(self.bos)} blocks always kept at the front",
            f"eos: one of {list(self.eos)} blocks always kept at the end",
            f"layers_skip: one of {[list(x) for x in self.layers_skip]} (dense layers)",
        ]
        return "\n".join(lines)

    def _movable(self) -> list[str]:
        """Knobs to step, often the ones that trade accuracy for bytes finely."""
        often = ["topk_val", "topk_val", "topk_val", "block_size", "block_size", "eos", "eos"]
        rest = ["topk_ratio", "bos", "layers_skip", "policy"]
        return [n for n in (*often, *rest) if n == "topk_val" or len(getattr(self, n)) > 1]

    def _topk(self, rng: random.Random) -> int:
        low, high = float(self.topk_low), float(self.topk_high) + 1
        return min(self.topk_high, int(low * (high / low) ** rng.random()))

    def _step(self, knobs: Knobs, name: str, rng: random.Random) -> Knobs:
        if name == "topk_val":
            factor: float = 2.0 ** rng.uniform(-1, 1)
            value = round(knobs.topk_val * factor)
            if value == knobs.topk_val:
                value += rng.choice((-1, 1))
            value = min(max(value, self.topk_low), self.topk_high)
            return knobs.with_(topk_val=value if value != knobs.topk_val else self._topk(rng))
        menu = list(getattr(self, name))
        current = getattr(knobs, name)
        if current not in menu:
            return knobs.with_(**{name: rng.choice(menu)})
        at = menu.index(current)
        near = [i for i in (at - 1, at + 1) if 0 <= i < len(menu)]
        return knobs.with_(**{name: menu[rng.choice(near)]}) if near else knobs


def _mostly_first(rng: random.Random, menu: tuple[_T, ...]) -> _T:
    return menu[0] if rng.random() < 0.5 else rng.choice(menu)


def _show(value: object) -> object:
    return list(value) if isinstance(value, tuple) else value
