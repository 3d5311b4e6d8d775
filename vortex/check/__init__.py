"""`python -m vortex.check FILE`: everything that can be known of a flow file or an engine's configuration
without running a model, in a second and without torch.

`report.py` says what is known, `inspect.py` finds it out, `table.py` prints it. `allowlist.py` reads a flow's
source as text: the first layer of the sandbox that candidates are traced in.
"""
