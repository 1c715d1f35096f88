"""The guest's agent, as the shim sees it: an untrusted peer."""
