"""Whether a proposal is a candidate: sandbox, type check, the model's geometry, the hash."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

from agent.proposers.base import Proposal
from agent.sandbox import Rejected
from search_spaces.candidate import Candidate
from vortex.errors import VortexError
from vortex.graph.geometry import Geometry
from vortex.graph.model import FlowGraph

_OTHER_KIND = {
    "gqa": "the model caches keys and values: the flow must be a vFlow over k and v",
    "mla": "the model caches latents (MLA): the flow must be a vFlowMLA over latent",
}


class Tracer(Protocol):
    """What turns untrusted source into a graph: `agent.sandbox.Sandbox`."""

    @property
    def isolation(self) -> str: ...

    def trace(self, source: str) -> FlowGraph: ...


@dataclass(frozen=True)
class Checked:
    """A proposal with the candidate that it is, or with the reason why it is none."""

    proposal: Proposal
    candidate: Candidate | None = None
    reason: str = ""


class Checker:
    """`geometry`: of the model; a flow that cannot run on it is refused before it is measured."""

    def __init__(self, tracer: Tracer, geometry: Geometry) -> None:
        self._tracer = tracer
        self._geometry = geometry

    def check(self, proposal: Proposal) -> Checked:
        """Never raises: whatever a proposal does, it is only that proposal's verdict."""
        try:
            candidate = Candidate(self._tracer.trace(proposal.source), proposal.knobs)
            if candidate.graph.kind != self._geometry.kind:
                return Checked(proposal, reason=_OTHER_KIND[self._geometry.kind])
            candidate.graph.instantiate(replace(self._geometry, block_size=proposal.knobs.block_size))
            _ = candidate.hash  # computed here, for it parses the policy
            return Checked(proposal, candidate)
        except Rejected as error:
            hint = f" {error.hint}" if error.hint and error.hint not in error.reason else ""
            return Checked(proposal, reason=error.reason + hint)
        except VortexError as error:
            return Checked(proposal, reason=str(error) or type(error).__name__)
        except Exception as error:
            return Checked(proposal, reason=f"the check failed: {type(error).__name__}: {error}")
