"""Block devices: device-mapper tables and messages that the guest's agent and a tenant's volume sidecar share."""
