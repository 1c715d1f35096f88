"""What this host can do, and what to do about the rest: one file for each check."""
