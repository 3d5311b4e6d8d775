"""Kernels written by hand, which serve every flow, and how kernels are built and kept."""
