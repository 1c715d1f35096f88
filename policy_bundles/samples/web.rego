# A web server behind one port, with a probe and nothing else. What a generator writes looks like this.
package policy

api_version := "0.12.0"

framework_version := "0.5.0"

containers := [{
	"name": "web",
	"layers": [
		"5f0d0a0f2b0c4f6a86c6f7e2b7c1d0a9e8f7a6b5c4d3e2f100112233445566aa",
		"6a1e1b103c1d507b97d7080f3c8d2e1baf90807b6c5d4e3f0211223344556677",
	],
	"command": ["nginx", "-g", "daemon off;"],
	"env_rules": [
		{
			"pattern": "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
			"strategy": "string",
			"required": true,
		},
		{
			"name": "HOSTNAME",
			"name_strategy": "string",
			"value": "[a-z0-9.-]{1,63}",
			"value_strategy": "re2",
			"required": false,
		},
	],
	"working_dir": "/",
	"mounts": [{
		"source": "sandbox:///tmp/atlas/emptydir/.+",
		"destination": "/var/cache/nginx",
		"type": "bind",
		"options": ["rbind", "rshared", "rw"],
	}],
	"exec_processes": [{"command": ["nginx", "-t"], "signals": []}],
	"signals": [3, 9, 15],
	"user": {
		"user_idname": {"pattern": "101", "strategy": "id"},
		"group_idnames": [{"pattern": "101", "strategy": "id"}],
		"umask": "0022",
	},
	"capabilities": {
		"bounding": ["CAP_NET_BIND_SERVICE"],
		"effective": [],
		"inheritable": [],
		"permitted": [],
		"ambient": [],
	},
	"seccomp_profile_sha256": "",
	"allow_elevated": false,
	"allow_stdio_access": false,
	"no_new_privileges": true,
}]

allow_properties_access := true

allow_dump_stacks := false

allow_runtime_logging := false

allow_host_network := false

allow_environment_variable_dropping := false

allow_unencrypted_scratch := false

allow_capability_dropping := false

allow_port_forward := []

mount_device := data.framework.mount_device

unmount_device := data.framework.unmount_device

rw_mount_device := data.framework.rw_mount_device

rw_unmount_device := data.framework.rw_unmount_device

mount_blockdev := data.framework.mount_blockdev

unmount_blockdev := data.framework.unmount_blockdev

scratch_mount := data.framework.scratch_mount

scratch_unmount := data.framework.scratch_unmount

mount_overlay := data.framework.mount_overlay

unmount_overlay := data.framework.unmount_overlay

create_container := data.framework.create_container

exec_in_container := data.framework.exec_in_container

signal_container_process := data.framework.signal_container_process

shutdown_container := data.framework.shutdown_container

exec_external := data.framework.exec_external

plan9_mount := data.framework.plan9_mount

plan9_unmount := data.framework.plan9_unmount

get_properties := data.framework.get_properties

dump_stacks := data.framework.dump_stacks

runtime_logging := data.framework.runtime_logging

host_network := data.framework.host_network

load_fragment := data.framework.load_fragment

load_transparency_trust_list := data.framework.load_transparency_trust_list

port_forward := data.framework.port_forward

reason := data.framework.reason
