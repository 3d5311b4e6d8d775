"""Flow files that seed a search, beside those that ship with the language. Read as text, never imported."""
