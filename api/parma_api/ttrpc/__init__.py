"""ttrpc: frames, streams, and asyncio drivers for both ends (docs/protocol-ttrpc.md)."""
