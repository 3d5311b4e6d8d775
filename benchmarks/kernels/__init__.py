"""The kernels of a sparse decode step, beside dense attention and beside their floors, on one GPU."""
