"""The policy's gate: what the agent enforces and what the tenant's simulator plays are this same code.

`points` names what can be asked, `gate` decides and commits, `opa` and `sidecar` evaluate the Rego, `metadata` is the
state that belongs to the agent. Nothing here knows an RPC: the mapping from RPCs to points is the guest's.
"""
