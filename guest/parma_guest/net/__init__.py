"""The pod's own interface, as the CNI made it on the host, and the settings of its namespaces."""
