package framework_test

import data.framework

share := {
	"rule": "plan9_mount",
	"rootPrefix": "/run/gcs/c",
	"mountPathPrefix": "/mounts/m[0-9]+",
	"target": "/run/gcs/c/c1/mounts/m1",
}

test_share_belongs_to_one_container if {
	result := framework.plan9_mount with input as share with data.metadata as assembled
	result.metadata == [{"name": "p9mounts", "action": "add", "key": "/run/gcs/c/c1/mounts/m1", "value": "c1"}]
}

invalid_targets := [
	"/run/gcs/c/c2/mounts/m1", "/run/gcs/c/c1/mounts/m", "/run/gcs/c/c1/mounts/m1/x", "/c1/mounts/m1",
	"/run/gcs/c/c1",
]

test_share_elsewhere_is_refused[target] if {
	some target in invalid_targets
	result := framework.plan9_mount with input as object.union(share, {"target": target}) with data.metadata as assembled
	result.reason_codes == ["plan9.target_invalid"]
}

test_share_is_detached if {
	state := object.union(assembled, {"p9mounts": {"/run/gcs/c/c1/mounts/m1": "c1"}})
	taken := framework.plan9_mount with input as share with data.metadata as state
	taken.reason_codes == ["plan9.target_in_use"]
	asked := {"rule": "plan9_unmount", "unmountTarget": "/run/gcs/c/c1/mounts/m1"}
	result := framework.plan9_unmount with input as asked with data.metadata as state
	result.allowed
	refused := framework.plan9_unmount with input as asked with data.metadata as {}
	refused.reason_codes == ["plan9.not_mounted"]
}
