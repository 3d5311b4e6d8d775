"""What runs inside the jail. `server.py` is started as a script; only `names.py` is also imported by the parent."""
