"""Where requests meet the gate."""
