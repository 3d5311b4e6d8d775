"""`python -m vortex.check FILE`: everything that can be known of a flow file or an engine's configuration
without running a model, in a second and without torch.

Start reading at `check.py`. `allowlist.py` reads a source as text (it is also the first layer of the sandbox
that candidates are traced in), `examine.py` traces it, `describe.py` puts the graph into words, `report.py`
is what is said, `tables.py` prints it.
"""
