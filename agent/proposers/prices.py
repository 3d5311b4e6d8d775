"""What a model's tokens cost, where the user said so."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

PRICES_VARIABLE = "VORTEX_LLM_PRICES"
"""Environment variable: JSON, or the path of a JSON file, `{"model": {"prompt": 2.5, "completion":
10}}`."""


class Price(BaseModel):
    """US dollars per million tokens."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    prompt: Annotated[float, Field(ge=0)]
    completion: Annotated[float, Field(ge=0)]

    def cost(self, prompt_tokens: int, completion_tokens: int) -> float:
        """US dollars."""
        return (prompt_tokens * self.prompt + completion_tokens * self.completion) / 1e6


_TABLE = TypeAdapter(dict[str, Price])


def load_prices(environ: Mapping[str, str] = os.environ) -> dict[str, Price]:
    """The table that the user gave, empty when there is none: prices change, so none is shipped.

    Raises ValueError naming the variable when it holds something else.
    """
    text = environ.get(PRICES_VARIABLE, "").strip()
    if not text:
        return {}
    try:
        if not text.startswith("{"):
            with open(text, encoding="utf-8") as file:
                text = file.read()
        return _TABLE.validate_json(text)
    except (OSError, ValidationError) as error:
        raise ValueError(
            f'{PRICES_VARIABLE} must be JSON like {{"model": {{"prompt": 2.5, "completion": 10}}}} '
            f"(dollars per million tokens) or the path of such a file: {error}"
        ) from error
