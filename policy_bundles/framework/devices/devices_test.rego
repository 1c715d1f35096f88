package framework_test

import data.framework

mount := {
	"rule": "mount_device",
	"target": "/run/mounts/scsi/m1",
	"deviceHash": "h0",
	"mountPathRegex": "/run/mounts/scsi/m[0-9]+",
}

test_layer_of_a_description_is_mounted if {
	result := framework.mount_device with input as mount with data.policy as base with data.metadata as {}
	result.allowed
	result.metadata == [{"name": "devices", "action": "add", "key": "/run/mounts/scsi/m1", "value": "h0"}]
}

test_layer_of_an_included_part_is_mounted if {
	parts := {"i": {"feeds": {"f": [{"containers": [{"layers": ["h9"]}]}]}}}
	result := framework.mount_device with input as object.union(mount, {"deviceHash": "h9"})
		with data.policy as base
		with data.metadata as {"issuers": parts}
	result.allowed
}

device_cases := {
	"unknown": {"change": {"deviceHash": "H0"}, "state": {}, "codes": ["device.hash_unknown"]},
	"in use": {"change": {}, "state": {"devices": {"/run/mounts/scsi/m1": "h1"}}, "codes": ["device.target_in_use"]},
	"in use, writable": {
		"change": {},
		"state": {"rw_devices": {"/run/mounts/scsi/m1": true}},
		"codes": ["device.target_in_use"],
	},
	"line feed": {"change": {"target": "/run/mounts/scsi/m1\n"}, "state": {}, "codes": ["device.target_invalid"]},
	"elsewhere": {"change": {"target": "/etc"}, "state": {}, "codes": ["device.target_invalid"]},
}

test_mount_device_refused[name] if {
	some name, c in device_cases
	result := framework.mount_device with input as object.union(mount, c.change)
		with data.policy as base
		with data.metadata as c.state
	result == {"allowed": false, "reason_codes": c.codes}
}

test_rule_bound_to_another_point_is_refused if {
	result := framework.mount_device with input as object.union(mount, {"rule": "unmount_device"})
		with data.policy as base
		with data.metadata as {}
	not result.allowed
}

unmount_cases := {
	"layer": {"rule": "unmount_device", "state": {"devices": {"/m": "h"}}, "codes": []},
	"layer, writable": {
		"rule": "unmount_device",
		"state": {"rw_devices": {"/m": true}},
		"codes": ["device.kind_mismatch"],
	},
	"layer, nothing": {"rule": "unmount_device", "state": {}, "codes": ["device.not_mounted"]},
	"writable": {"rule": "rw_unmount_device", "state": {"rw_devices": {"/m": true}}, "codes": []},
	"writable, layer": {
		"rule": "rw_unmount_device",
		"state": {"devices": {"/m": "h"}},
		"codes": ["device.kind_mismatch"],
	},
	"writable, nothing": {"rule": "rw_unmount_device", "state": {}, "codes": ["device.not_mounted"]},
}

test_unmounts[name] if {
	some name, c in unmount_cases
	found := framework.codes with input as {"rule": c.rule, "unmountTarget": "/m"} with data.metadata as c.state
	found == {code | some code in c.codes}
}

test_unmounts_remove_their_entry if {
	layer := framework.unmount_device with input as {"rule": "unmount_device", "unmountTarget": "/m"}
		with data.metadata as {"devices": {"/m": "h"}}
	layer.metadata == [{"name": "devices", "action": "remove", "key": "/m"}]
	writable := framework.rw_unmount_device with input as {"rule": "rw_unmount_device", "unmountTarget": "/m"}
		with data.metadata as {"rw_devices": {"/m": true}}
	writable.metadata == [{"name": "rw_devices", "action": "remove", "key": "/m"}]
}

rw_mount := {
	"rule": "rw_mount_device",
	"target": "/run/gcs/c/00",
	"encrypted": true,
	"ensureFilesystem": true,
	"filesystem": "ext4",
	"mountPathRegex": "/run/gcs/c/[0-9]{2}",
}

test_writable_device_is_mounted if {
	result := framework.rw_mount_device with input as rw_mount with data.policy as base with data.metadata as {}
	result.metadata == [{"name": "rw_devices", "action": "add", "key": "/run/gcs/c/00", "value": true}]
}

rw_cases := {
	"scratch.unencrypted": {"encrypted": false},
	"device.filesystem_not_ensured": {"ensureFilesystem": false},
	"device.filesystem_not_allowed": {"filesystem": "btrfs"},
	"device.target_invalid": {"target": "/run/gcs/c/0"},
}

test_rw_mount_refused[code] if {
	some code, change in rw_cases
	result := framework.rw_mount_device with input as object.union(rw_mount, change)
		with data.policy as base
		with data.metadata as {}
	result.reason_codes == [code]
}

test_device_nodes_are_never_offered if {
	mounted := framework.mount_blockdev with input as {"rule": "mount_blockdev", "target": "/m"}
	unmounted := framework.unmount_blockdev with input as {"rule": "unmount_blockdev", "unmountTarget": "/m"}
	{r.reason_codes[0] | some r in [mounted, unmounted]} == {"blockdev.not_supported"}
}

test_scratch_directory if {
	asked := {"rule": "scratch_mount", "target": "/s", "encrypted": true}
	result := framework.scratch_mount with input as asked with data.policy as base with data.metadata as {}
	result.metadata[0].value == {"encrypted": true}
	plain := object.union(asked, {"encrypted": false})
	refused := framework.scratch_mount with input as plain with data.policy as base
		with data.metadata as {"scratch_mounts": {"/s": {"encrypted": true}}}
	refused.reason_codes == ["scratch.target_in_use", "scratch.unencrypted"]
	lenient := object.union(base, {"allow_unencrypted_scratch": true})
	allowed := framework.scratch_mount with input as plain with data.policy as lenient with data.metadata as {}
	allowed.allowed
}

test_scratch_directory_is_given_up if {
	asked := {"rule": "scratch_unmount", "unmountTarget": "/s"}
	result := framework.scratch_unmount with input as asked
		with data.metadata as {"scratch_mounts": {"/s": {"encrypted": true}}}
	result.metadata[0].action == "remove"
	refused := framework.scratch_unmount with input as asked with data.metadata as {}
	refused.reason_codes == ["scratch.not_mounted"]
}
