"""containerd's task service: states, events, statistics."""
