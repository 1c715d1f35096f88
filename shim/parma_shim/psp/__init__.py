"""The stub of AMD's security processor, host side: it signs genuine-format reports under a root of its own.

For development, CI and kind. What it signs says "stub" in every certificate; nobody trusts its root unless told to by
name, and only the stub image's agent listens to it (design: `docs/decisions/stub.md`).
"""
