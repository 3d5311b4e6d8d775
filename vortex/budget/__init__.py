"""How many blocks a row may keep: `schedule_policy` as a checked expression tree.

`parse_policy` reads a C++ function body through an allow-list (`parse.py`), `tree.py` says what a tree means,
`scalar.py` and `vector.py` evaluate it, `canonical.py` gives its identity, and `cuda.py` emits it for the
planner. `compiled.py` is for what a trusted user writes outside of the subset. The parser is imported on
first use.
"""

from __future__ import annotations

from vortex.budget.policy import (
    DEFAULT_POLICY,
    BudgetConfig,
    Policy,
    Rule,
    chosen_blocks,
    default_policy,
    parse_policy,
)

__all__ = [
    "DEFAULT_POLICY",
    "BudgetConfig",
    "Policy",
    "Rule",
    "chosen_blocks",
    "default_policy",
    "parse_policy",
]
