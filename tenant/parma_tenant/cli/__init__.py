"""Command groups of the tenant's side."""
