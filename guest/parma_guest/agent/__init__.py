"""The calls of the protocol, and the state of the one group in this VM."""

VERSION = "0.1.0"
"""Of the agent; a test compares it with pyproject.toml."""
