"""The host's side gone bad: a shim that plays the attacks of the threat model against real utility VMs."""
