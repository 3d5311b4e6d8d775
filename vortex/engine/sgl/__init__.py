"""SGLang engine. Importing this package needs no SGLang."""
