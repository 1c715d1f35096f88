"""Byte streams, and the multiplexer that carries several over one (docs/protocol-channel.md)."""
