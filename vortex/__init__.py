"""Vortex: sparse-attention algorithms as small typed programs, compiled to data and executed by targets.

Importing this package, or tracing a flow, never imports torch.
"""

__version__ = "0.1.0"
