"""Processes: crun, their ends, their standard streams."""
