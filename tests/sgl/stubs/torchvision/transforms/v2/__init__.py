"""The second version of the transforms."""
