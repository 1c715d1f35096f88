package framework_test

import data.framework

test_container_is_created if {
	result := framework.create_container with input as create with data.policy as base with data.metadata as assembled
	result.allowed
	result.allow_stdio_access
	result.metadata == [{"name": "started", "action": "add", "key": "c1", "value": {"privileged": false}}]
}

good_mount := {"source": "/pod/s/data/x", "destination": "/data", "type": "bind", "options": ["rw", "rbind"]}

create_cases := {
	"process.command": {"argList": ["/app", "more"]},
	"process.working_dir": {"workingDir": "/srv/"},
	"process.user": {"umask": "022"},
	"process.no_new_privileges": {"noNewPrivileges": false},
	"process.privileged": {"privileged": true},
	"process.seccomp": {"seccompProfileSHA256": "aa"},
	"process.devices": {"devices": [{"path": "/dev/kmsg"}]},
	"process.mounts": {"mounts": [object.union(good_mount, {"options": ["ro", "rbind"]})]},
	"process.env": {"envList": ["MODE=x", "OTHER=1"]},
	"process.env_required": {"envList": []},
	"process.capabilities": {"capabilities": privileged},
	"container.unknown": {"containerID": "c9"},
}

test_create_refused[code] if {
	some code, change in create_cases
	result := framework.create_container with input as object.union(create, change)
		with data.policy as base
		with data.metadata as assembled
	not result.allowed
	code in result.reason_codes
	count(result.reason_codes) < 3 + (count([1 | code == "container.unknown"]) * 20)
}

test_created_once if {
	result := framework.create_container with input as create with data.policy as base with data.metadata as started
	result.reason_codes == ["container.already_started"]
}

allowed_changes := [
	{"mounts": [good_mount]},
	{"mounts": [{"source": "proc", "destination": "/proc", "type": "proc", "options": ["nosuid", "noexec", "nodev"]}]},
	{"envList": ["MODE=x", "ZONE_A=b", "POD=p-7", "FIX=1"]},
	{"groups": []},
	{"groups": [{"id": "2", "name": "svc-mail"}]},
]

test_create_allowed[index] if {
	some index, change in allowed_changes
	result := framework.create_container with input as object.union(create, change)
		with data.policy as base
		with data.metadata as assembled
	result.allowed
}

refused_texts := ["ZONE_a=b", "ZONE_A=", "POD=p-7x", "POD", "FIX=12", "mode=x", "ZONE_A=b\nC=d"]

test_variables_refused[text] if {
	some text in refused_texts
	result := framework.create_container with input as object.union(create, {"envList": ["MODE=x", text]})
		with data.policy as base
		with data.metadata as assembled
	result.reason_codes == ["process.env"]
}

test_sandbox_may_have_a_writable_sysfs if {
	sysfs := {"source": "sysfs", "destination": "/sys", "type": "sysfs", "options": ["nosuid", "noexec", "nodev", "rw"]}
	asked := object.union(create, {"mounts": [sysfs], "isSandboxContainer": true})
	result := framework.create_container with input as asked with data.policy as base with data.metadata as assembled
	result.allowed
}

test_elevated_container_may_be_privileged if {
	elevated := object.union(container, {"allow_elevated": true})
	sysfs := {"source": "sysfs", "destination": "/sys", "type": "sysfs", "options": ["nosuid", "noexec", "nodev", "rw"]}
	asked := object.union(create, {"privileged": true, "capabilities": privileged, "mounts": [sysfs]})
	result := framework.create_container with input as asked
		with data.policy as base
		with data.metadata as {"matches": {"c1": [elevated]}}
	result.allowed
	plain := framework.create_container with input as create
		with data.policy as base
		with data.metadata as {"matches": {"c1": [elevated]}}
	plain.allowed
}

special_mounts := [
	{"rule": "hugepages:///2M/.+", "source": "/pod/h/2M/x"},
	{"rule": "plan9://", "source": "/share"},
	{"rule": "/fixed", "source": "/fixed"},
	{"rule": "", "source": ""},
]

test_special_mount_sources[index] if {
	some index, c in special_mounts
	rule := {"source": c.rule, "destination": "/d", "type": "bind", "options": ["ro"]}
	asked := object.union(create, {"mounts": [object.union(rule, {"source": c.source})]})
	result := framework.create_container with input as asked
		with data.policy as base
		with data.metadata as {
			"matches": {"c1": [object.union(container, {"mounts": [rule]})]},
			"p9mounts": {"/share": "c1"},
		}
	result.allowed
}

test_broken_pattern_fits_nothing if {
	every pattern in ["(", "a)|(?:.*", "A=["] {
		not framework.matches_whole(pattern, pattern)
		not framework.matches_whole(pattern, "anything")
	}
}

dropping := object.union(base, {
	"allow_environment_variable_dropping": true,
	"allow_capability_dropping": true,
})

test_dropping_keeps_the_largest_set if {
	asked := object.union(create, {"envList": ["MODE=x", "OTHER=1"], "capabilities": privileged})
	result := framework.create_container with input as asked with data.policy as dropping with data.metadata as assembled
	result.env_list == ["MODE=x"]
	result.caps_list.inheritable == []
	count(result.caps_list.bounding) == 14
}

other_env := object.union(container, {"name": "other", "env_rules": [{"pattern": "B=1", "strategy": "string"}]})

test_equal_sizes_cannot_be_decided if {
	result := framework.create_container with input as object.union(create, {"envList": ["MODE=x", "B=1"]})
		with data.policy as dropping
		with data.metadata as {"matches": {"c1": [container, other_env]}}
	"process.env_undecidable" in result.reason_codes
}

capable(names) := object.union(container, {"capabilities": {
	"bounding": names, "effective": [], "inheritable": [],
	"permitted": [], "ambient": [],
}})

test_equal_capabilities_cannot_be_decided if {
	result := framework.create_container with input as create
		with data.policy as dropping
		with data.metadata as {"matches": {"c1": [capable(["CAP_KILL"]), capable(["CAP_CHOWN"])]}}
	"process.capabilities_undecidable" in result.reason_codes
}

create_capable(names) := object.union(create, {"capabilities": capable(names).capabilities})

test_capabilities_in_any_order_and_nothing_doubled if {
	state := {"matches": {"c1": [capable(["CAP_KILL", "CAP_CHOWN"])]}}
	other_order := framework.create_container with input as create_capable(["CAP_CHOWN", "CAP_KILL"])
		with data.policy as base
		with data.metadata as state
	other_order.allowed
	doubled := framework.create_container with input as create_capable(["CAP_CHOWN", "CAP_CHOWN", "CAP_KILL"])
		with data.policy as base
		with data.metadata as state
	doubled.reason_codes == ["process.capabilities"]
}

quiet := object.union(container, {"name": "quiet", "allow_stdio_access": false})

test_streams_never_decide if {
	result := framework.create_container with input as create
		with data.policy as base
		with data.metadata as {"matches": {"c1": [container, quiet]}}
	result.reason_codes == ["process.stdio_undecidable"]
}

test_creation_narrows if {
	result := framework.create_container with input as create
		with data.policy as base
		with data.metadata as {"matches": {"c1": [container, other_env]}}
	result.metadata[0] == {"name": "matches", "action": "update", "key": "c1", "value": [container]}
}

test_each_passes_something_none_all if {
	other := object.union(container, {"name": "o", "working_dir": "/", "command": ["/other"]})
	result := framework.create_container with input as object.union(create, {"workingDir": "/"})
		with data.policy as base
		with data.metadata as {"matches": {"c1": [container, other]}}
	result.reason_codes == ["process.no_single_candidate"]
}

test_further_process if {
	result := framework.exec_in_container with input as execute with data.policy as base with data.metadata as started
	result.allowed
	result.metadata == []
}

test_further_process_refused if {
	unlisted := framework.exec_in_container with input as object.union(execute, {"argList": ["/app"]})
		with data.policy as base
		with data.metadata as started
	unlisted.reason_codes == ["process.command"]
	early := framework.exec_in_container with input as execute with data.policy as base with data.metadata as assembled
	early.reason_codes == ["container.not_started"]
}

external := {
	"rule": "exec_external",
	"argList": ["/usr/bin/netcheck"],
	"envList": [],
	"workingDir": "/",
}

external_rule := {
	"command": ["/usr/bin/netcheck"],
	"env_rules": [],
	"working_dir": "/",
	"allow_stdio_access": true,
}

test_external_process if {
	listed := object.union(base, {"external_processes": [external_rule]})
	result := framework.exec_external with input as external with data.policy as listed with data.metadata as {}
	result == {"allowed": true, "env_list": [], "allow_stdio_access": true}
	refused := framework.exec_external with input as object.union(external, {"argList": []})
		with data.policy as object.union(base, {"external_processes": [object.union(external_rule, {"command": []})]})
		with data.metadata as {}
	refused.reason_codes == ["process.command"]
}

test_external_process_of_an_older_generation if {
	old := {"framework_version": "0.2.3", "external_processes": [object.union(external_rule, {"x": 1})]}
	result := framework.exec_external with input as external with data.policy as old with data.metadata as {}
	result.allowed
	part := {"external_processes": [external_rule]}
	included := framework.exec_external with input as external
		with data.policy as base
		with data.metadata as {"issuers": {"i": {"feeds": {"f": [part]}}}}
	included.allowed
}

test_reason_names_the_nearest_candidates if {
	changes := {
		"argList": ["/x"], "workingDir": "/x", "umask": "1", "noNewPrivileges": false, "privileged": true,
		"seccompProfileSHA256": "aa", "mounts": [object.union(good_mount, {"type": "x"})], "envList": ["SECRET=1"],
	}
	reason := framework.reason with input as object.union(create, changes)
		with data.policy as base
		with data.metadata as assembled
	count(reason.errors) > 7
	reason.error_objects[0].container == "app"
	count(reason.error_objects[0].differs) == 7
	reason.error_objects[0].variables == ["SECRET=1"]
}

test_reason_of_a_further_process if {
	reason := framework.reason with input as object.union(execute, {"argList": ["/x"]})
		with data.policy as base
		with data.metadata as {
			"matches": {"c1": [object.remove(container, ["name"])]},
			"started": {"c1": {"privileged": false}},
		}
	reason.error_objects[0].container == "/app"
	reason.error_objects[0].differs[0].expected == [["/probe"]]
}

test_reason_without_candidates if {
	reason := framework.reason with input as {"rule": "get_properties"} with data.policy as base
	reason == {"errors": {"the policy's flag for this is off"}, "error_objects": null}
}
