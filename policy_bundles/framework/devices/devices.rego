# Layer devices, writable devices, device nodes.
package framework

# METADATA
# description: A read-only layer device is mounted.
mount_device := {
	"allowed": true,
	"metadata": [{"name": "devices", "action": "add", "key": input.target, "value": input.deviceHash}],
} if {
	input.rule == "mount_device"
	count(codes) == 0
}

else := refusal

codes contains "device.target_in_use" if {
	input.rule in {"mount_device", "rw_mount_device"}
	device_in_use(input.target)
}

codes contains "device.hash_unknown" if {
	input.rule == "mount_device"
	not layer_named
}

codes contains "device.target_invalid" if {
	input.rule in {"mount_device", "rw_mount_device"}
	not matches_whole(input.mountPathRegex, input.target)
}

device_in_use(target) if data.metadata.devices[target]

device_in_use(target) if data.metadata.rw_devices[target]

# The descriptions as written: also one that is incomplete for its generation names its layers.
layer_named if {
	some container in data.policy.containers
	input.deviceHash in container.layers
}

layer_named if {
	some part in included_parts
	some container in part.containers
	input.deviceHash in container.layers
}

# METADATA
# description: A layer device is unmounted.
unmount_device := {
	"allowed": true,
	"metadata": [{"name": "devices", "action": "remove", "key": input.unmountTarget}],
} if {
	input.rule == "unmount_device"
	count(codes) == 0
}

else := refusal

codes contains "device.kind_mismatch" if {
	input.rule == "unmount_device"
	not data.metadata.devices[input.unmountTarget]
	data.metadata.rw_devices[input.unmountTarget]
}

codes contains "device.not_mounted" if {
	input.rule in {"unmount_device", "rw_unmount_device"}
	not device_in_use(input.unmountTarget)
}

# METADATA
# description: A writable device is mounted.
rw_mount_device := {
	"allowed": true,
	"metadata": [{"name": "rw_devices", "action": "add", "key": input.target, "value": true}],
} if {
	input.rule == "rw_mount_device"
	count(codes) == 0
}

else := refusal

codes contains "device.filesystem_not_ensured" if {
	input.rule == "rw_mount_device"
	not input.ensureFilesystem == true
}

codes contains "device.filesystem_not_allowed" if {
	input.rule == "rw_mount_device"
	not input.filesystem in {"ext4", "xfs"}
}

# METADATA
# description: A writable device is unmounted.
rw_unmount_device := {
	"allowed": true,
	"metadata": [{"name": "rw_devices", "action": "remove", "key": input.unmountTarget}],
} if {
	input.rule == "rw_unmount_device"
	count(codes) == 0
}

else := refusal

codes contains "device.kind_mismatch" if {
	input.rule == "rw_unmount_device"
	not data.metadata.rw_devices[input.unmountTarget]
	data.metadata.devices[input.unmountTarget]
}

# METADATA
# description: Device nodes are not offered.
mount_blockdev := refusal

unmount_blockdev := refusal

codes contains "blockdev.not_supported" if input.rule in {"mount_blockdev", "unmount_blockdev"}
