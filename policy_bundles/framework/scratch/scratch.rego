# Writable directories of containers.
package framework

# METADATA
# description: A container's writable directory is put to use.
scratch_mount := {
	"allowed": true,
	"metadata": [{
		"name": "scratch_mounts",
		"action": "add",
		"key": input.target,
		"value": {"encrypted": input.encrypted},
	}],
} if {
	input.rule == "scratch_mount"
	count(codes) == 0
}

else := refusal

codes contains "scratch.target_in_use" if {
	input.rule == "scratch_mount"
	data.metadata.scratch_mounts[input.target]
}

codes contains "scratch.unencrypted" if {
	input.rule in {"scratch_mount", "rw_mount_device"}
	not input.encrypted == true
	not data.policy.allow_unencrypted_scratch == true
}

# METADATA
# description: A container's writable directory is given up.
scratch_unmount := {
	"allowed": true,
	"metadata": [{"name": "scratch_mounts", "action": "remove", "key": input.unmountTarget}],
} if {
	input.rule == "scratch_unmount"
	count(codes) == 0
}

else := refusal

codes contains "scratch.not_mounted" if {
	input.rule == "scratch_unmount"
	not data.metadata.scratch_mounts[input.unmountTarget]
}
