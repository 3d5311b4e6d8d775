"""Stands in for IPython: SGLang imports two functions of it that only notebooks call."""  # noqa: N999
