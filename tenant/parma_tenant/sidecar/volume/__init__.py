"""`parma-volume`: attaches encrypted volumes and offers their files to the other containers of the group.

A privileged container, which the group's policy must allow, with an emptyDir that it mounts with the propagation
`Bidirectional` (`rshared`). The others mount the same emptyDir, with `HostToContainer` (`rslave`) if they start first.
For each volume it asks the key-release sidecar for the key, which says all that the kernel must be told
(`parma_tenant.volume.key`); attaches the blob; opens it under device-mapper; mounts it.

Its settings are one environment variable, which the policy measures: `config`. It serves until SIGTERM, then unmounts.
Exit status 0 after SIGTERM, 1 when a volume cannot be had (one line says why), 2 for settings that cannot be meant.
"""
