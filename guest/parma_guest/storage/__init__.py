"""Layers, scratch, overlays and the pod's files: planned by pure functions, carried out with undo."""
