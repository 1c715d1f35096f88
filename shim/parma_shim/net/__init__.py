"""The pod's network: what the CNI made, read from its namespace and joined to a tap."""
