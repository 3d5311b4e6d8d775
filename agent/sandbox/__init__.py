"""Turns a candidate's source into a checked graph without trusting it. Start reading at `sandbox.py`.

Who attacks: a proposer's output, that is, Python text of unknown intent. What is protected: this
machine's files, keys, network and processes, the search's records, and every other candidate.

1. The source is read as text against an allow-list (`vortex/check/allowlist.py`); the parent never
   compiles, imports or runs it.
2. A child of a warm server traces it inside one bubblewrap jail (`jail.py`, `inside/`): user nobody,
   empty environment, no network, no home, no /proc, no /dev, nothing writable; of the host only the
   interpreter, its libraries and the `vortex` package, read-only. CPU time, address space, file size,
   processes (none) and the answer are limited, and the parent keeps wall-clock time. Every request has a
   fork and a socket of its own; a mark that the tracer fetches after the trace tells its answer from
   bytes written by anybody else. After any misbehaviour the jail is killed and started anew.
3. One JSON document comes back, never a pickle. The graph in it is rebuilt by `FlowGraph.from_json`,
   which infers every type again, and its size is checked: a perfect forgery, by code that broke both
   layers, is at worst some other valid graph, measured like any other.

What it does not protect against: faults of the Linux kernel or of bubblewrap; a hostile interpreter,
`vortex` package or user account; side channels such as timing; a candidate that is merely bad at its task
or games the measurement (the evaluator's business); many slow candidates, each of which costs up to
`Limits.wall_s`. Code inside the jail can read the interpreter's and vortex's own files; they hold no
secrets. Where bubblewrap is missing, the second layer is plain limits (own process group, empty
environment, nobody if started by root, resource limits) without a wall around files and network:
`Sandbox.isolation` says which, and a warning says why.
"""

from __future__ import annotations

from agent.sandbox.limits import Limits
from agent.sandbox.sandbox import Sandbox
from vortex.check.allowlist import check_source
from vortex.check.rejected import Kind, Rejected

__all__ = ["Kind", "Limits", "Rejected", "Sandbox", "check_source"]
