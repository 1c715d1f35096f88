"""The layer format: OCI layer tar -> ext4 image -> dm-verity, byte for byte (layer-format reference)."""
