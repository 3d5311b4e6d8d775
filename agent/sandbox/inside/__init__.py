"""What runs inside the jail: `server.py` is started as a script."""
