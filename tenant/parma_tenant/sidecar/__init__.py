"""Programs that run as containers of a group, beside its workload."""
