"""The calls of the protocol, and the state of the one group in this VM."""
