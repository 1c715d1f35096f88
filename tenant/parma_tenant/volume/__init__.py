"""Encrypted volumes: the key that says all there is to know about a blob, and blobs made without device-mapper."""
