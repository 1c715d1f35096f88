# METADATA
# title: API table
# description: |
#   Every enforcement point: the API version that introduced it and what a policy gets that is older than the point
#   and does not define it. `framework` marks points where the framework's own rule applies instead of the default;
#   `optional` marks points of ours that no policy has to define, whatever its version.
#   The same table is in parma_api/policy/points.py; a test compares the two.
package api

version := "0.12.0"

generation := "0.5.0"

points := {
	"mount_device": {"introduced": "0.1.0", "default": {"allowed": false}},
	"mount_overlay": {"introduced": "0.1.0", "default": {"allowed": false}},
	"create_container": {
		"introduced": "0.1.0",
		"default": {"allowed": false, "env_list": null, "allow_stdio_access": false},
	},
	"unmount_device": {"introduced": "0.2.0", "default": {"allowed": true}},
	"exec_in_container": {"introduced": "0.2.0", "default": {"allowed": true, "env_list": null}},
	"exec_external": {
		"introduced": "0.3.0",
		"default": {"allowed": true, "env_list": null, "allow_stdio_access": false},
	},
	"shutdown_container": {"introduced": "0.4.0", "default": {"allowed": true}},
	"signal_container_process": {"introduced": "0.5.0", "default": {"allowed": true}},
	"plan9_mount": {"introduced": "0.6.0", "default": {"allowed": true}},
	"plan9_unmount": {"introduced": "0.6.0", "default": {"allowed": true}},
	"unmount_overlay": {"introduced": "0.6.0", "default": {"allowed": true}},
	"get_properties": {"introduced": "0.7.0", "default": {"allowed": true}},
	"dump_stacks": {"introduced": "0.7.0", "default": {"allowed": true}},
	"runtime_logging": {"introduced": "0.8.0", "default": {"allowed": true}},
	"load_fragment": {"introduced": "0.9.0", "default": {"allowed": false, "add_module": false}},
	"scratch_mount": {"introduced": "0.10.0", "default": {"allowed": true}},
	"scratch_unmount": {"introduced": "0.10.0", "default": {"allowed": true}},
	"rw_mount_device": {"introduced": "0.11.0", "default": {"allowed": false}, "framework": true},
	"rw_unmount_device": {"introduced": "0.11.0", "default": {"allowed": false}, "framework": true},
	"mount_blockdev": {"introduced": "0.11.1", "default": {"allowed": false}},
	"unmount_blockdev": {"introduced": "0.11.1", "default": {"allowed": false}},
	"host_network": {"introduced": "0.12.0", "default": {"allowed": false}},
	"load_transparency_trust_list": {"introduced": "0.12.0", "default": {"allowed": false}},
	"port_forward": {"introduced": "0.12.0", "default": {"allowed": false}, "optional": true},
}
