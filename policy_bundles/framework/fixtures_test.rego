# What the tests of all topics share.
package framework_test

container := {
	"name": "app",
	"layers": ["h0", "h1"],
	"command": ["/app"],
	"env_rules": [
		{"pattern": "MODE=x", "strategy": "string", "required": true},
		{"pattern": "ZONE_[A-Z]+=.+", "strategy": "re2", "required": false},
		{"name": "POD", "name_strategy": "string", "value": "p-[0-9]+", "value_strategy": "re2", "required": false},
		{"name": "FIX", "name_strategy": "string", "value": "1", "value_strategy": "string"},
	],
	"working_dir": "/srv",
	"mounts": [{
		"source": "sandbox:///data/.+",
		"destination": "/data",
		"type": "bind",
		"options": ["rbind", "rw"],
	}],
	"exec_processes": [{"command": ["/probe"], "signals": [2]}],
	"signals": [15],
	"user": {
		"user_idname": {"pattern": "1000", "strategy": "id"},
		"group_idnames": [{"pattern": "app", "strategy": "name"}, {"pattern": "svc-.+", "strategy": "re2"}],
		"umask": "0022",
	},
	"capabilities": null,
	"seccomp_profile_sha256": "",
	"allow_elevated": false,
	"allow_stdio_access": true,
	"no_new_privileges": true,
}

base := {"api_version": "0.12.0", "framework_version": "0.5.0", "containers": [container]}

unprivileged := {
	"bounding": data.defaultUnprivilegedCapabilities,
	"effective": data.defaultUnprivilegedCapabilities,
	"inheritable": [],
	"permitted": data.defaultUnprivilegedCapabilities,
	"ambient": [],
}

privileged := {
	"bounding": data.defaultPrivilegedCapabilities,
	"effective": data.defaultPrivilegedCapabilities,
	"inheritable": data.defaultPrivilegedCapabilities,
	"permitted": data.defaultPrivilegedCapabilities,
	"ambient": [],
}

process := {
	"containerID": "c1",
	"envList": ["MODE=x"],
	"workingDir": "/srv",
	"noNewPrivileges": true,
	"user": {"id": "1000", "name": "u"},
	"groups": [{"id": "1", "name": "app"}],
	"umask": "0022",
	"capabilities": unprivileged,
}

create := object.union(process, {
	"rule": "create_container",
	"argList": ["/app"],
	"sandboxDir": "/pod/s",
	"hugePagesDir": "/pod/h",
	"mounts": [],
	"devices": [],
	"privileged": false,
	"seccompProfileSHA256": "",
	"isSandboxContainer": false,
})

execute := object.union(process, {"rule": "exec_in_container", "argList": ["/probe"]})

assembled := {"matches": {"c1": [container]}}

started := {"matches": {"c1": [container]}, "started": {"c1": {"privileged": false}}}
