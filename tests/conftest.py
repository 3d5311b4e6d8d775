"""Before anything imports torch: one thread a process. Several test processes with several threads each
would spend most of their time waiting for one another."""

import os

if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")
