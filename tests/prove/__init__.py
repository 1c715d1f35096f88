"""The invariant, explored: docs/decisions/invariant.md."""
