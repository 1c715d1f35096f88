"""Layers on the host: converted once, kept, handed out as open files."""
