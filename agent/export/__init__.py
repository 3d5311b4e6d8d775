"""Taking a candidate away, and checking what was taken."""
