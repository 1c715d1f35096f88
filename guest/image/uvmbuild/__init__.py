"""Builds the utility VM's images: see `build.py` for the command and `image.toml` for the content."""
