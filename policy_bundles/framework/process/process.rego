# Processes - create_container, exec_in_container, exec_external.
#
# One trace for the three points. `failed` holds, for each candidate, the fixed checks that it does not pass; the
# variables and then the capabilities are judged for those that pass all of them. Verdict, reason codes and error
# objects read the same trace. Values by candidate are partial objects, so that each is computed when it is asked
# for, and once.
package framework

# METADATA
# description: A container is created; the candidates that this request is not possible for are forgotten.
create_container := {
	"allowed": true,
	"env_list": env_listed,
	"caps_list": capabilities_kept,
	"allow_stdio_access": stdio_access,
	"metadata": array.concat(narrowing, [{
		"name": "started",
		"action": "add",
		"key": input.containerID,
		"value": {"privileged": input.privileged},
	}]),
} if {
	input.rule == "create_container"
	not container_started
	process_allowed
}

else := refusal

# METADATA
# description: A further process in a container.
exec_in_container := {
	"allowed": true,
	"env_list": env_listed,
	"caps_list": capabilities_kept,
	"metadata": narrowing,
} if {
	input.rule == "exec_in_container"
	container_started
	process_allowed
}

else := refusal

# METADATA
# description: A process in the machine itself.
exec_external := {
	"allowed": true,
	"env_list": env_listed,
	"allow_stdio_access": stdio_access,
} if {
	input.rule == "exec_external"
	process_allowed
}

else := refusal

container_started if data.metadata.started[input.containerID]

fixed_checks := {
	"create_container": {
		"process.command", "process.working_dir", "process.user", "process.no_new_privileges",
		"process.privileged", "process.mounts", "process.seccomp",
	},
	"exec_in_container": {
		"process.command", "process.working_dir", "process.user",
		"process.no_new_privileges",
	},
	"exec_external": {"process.command", "process.working_dir"},
}

default candidates := []

candidates := data.metadata.matches[input.containerID] if input.rule != "exec_external"

candidates := [process | some process in (described | included)] if {
	input.rule == "exec_external"
	generation := policy_generation
	described := {d | some written in data.policy.external_processes; d := describe_external(written, generation)}
	included := {process | some part in included_parts; some process in part.external_processes}
}

failed := [checks |
	some candidate in candidates
	checks := {check | some check in fixed_checks[input.rule]; not passes(check, candidate)}
]

passes("process.command", candidate) if {
	input.rule in {"create_container", "exec_external"}
	candidate.command == input.argList
	count(input.argList) + count([1 | input.rule == "create_container"]) > 0
}

passes("process.command", candidate) if {
	input.rule == "exec_in_container"
	some process in candidate.exec_processes
	process.command == input.argList
}

passes("process.working_dir", candidate) if candidate.working_dir == input.workingDir

passes("process.user", candidate) if user_fits(candidate)

passes("process.no_new_privileges", candidate) if new_privileges_fit(candidate)

passes("process.privileged", candidate) if candidate.allow_elevated == true

passes("process.privileged", _) if input.privileged == false

passes("process.seccomp", candidate) if candidate.seccomp_profile_sha256 == input.seccompProfileSHA256

passes("process.mounts", candidate) if mounts_fit(candidate)

devices_named if count(input.devices) > 0

fixed_left := [] if devices_named

else := [index | some index, checks in failed; count(checks) == 0]

# Variables.
env_admitted_by[index] := admitted if {
	rules := candidates[index].env_rules
	admitted := env_admitted(rules, env_requested)
}

env_kept := env_requested if not env_dropping

env_kept := kept if {
	env_dropping
	count(env_largest) == 1
	some kept in env_largest
}

env_listed := input.envList if not env_dropping

else := [variable | some variable in env_kept]

env_largest := {admitted |
	most := max([count(env_admitted_by[index]) | some index in fixed_left])
	some index in fixed_left
	admitted := env_admitted_by[index]
	count(admitted) == most
}

env_left := [index |
	some index in fixed_left
	count(env_kept - env_admitted_by[index]) == 0
	env_complete(candidates[index].env_rules, env_kept)
]

# Capabilities.
default started_privileged := false

started_privileged := input.privileged if input.rule == "create_container"

started_privileged := data.metadata.started[input.containerID].privileged if input.rule == "exec_in_container"

capabilities_by[index] := described_capabilities(candidates[index], started_privileged)

capabilities_common_by[index] := capabilities_common(input.capabilities, capabilities_by[index])

capabilities_kept := input.capabilities if not capability_dropping

capabilities_kept := kept if {
	capability_dropping
	count(capabilities_largest) == 1
	some kept in capabilities_largest
}

capabilities_largest := {common |
	most := max([capabilities_size(capabilities_common_by[index]) | some index in env_left])
	some index in env_left
	common := capabilities_common_by[index]
	capabilities_size(common) == most
}

process_left := env_left if input.rule == "exec_external"

process_left := [index |
	some index in env_left
	capabilities_pass(capabilities_by[index])
] if {
	input.rule != "exec_external"
}

capabilities_pass(described) if {
	not capability_dropping
	capabilities_equal(described, capabilities_kept)
}

capabilities_pass(described) if {
	capability_dropping
	capabilities_equal(capabilities_as_sets(described), capabilities_kept)
}

# Standard streams never decide which candidate is meant.
stdio_access := access if {
	answers := {object.get(candidates[index], "allow_stdio_access", null) | some index in process_left}
	count(answers) == 1
	some access in answers
}

stdio_decided if is_boolean(stdio_access)

# The verdict, before a point adds its own conditions.
process_allowed if {
	count(process_left) > 0
	input.rule == "exec_in_container"
}

process_allowed if {
	count(process_left) > 0
	stdio_decided
}

# Nothing is written where nothing was narrowed.
narrowing := [] if count(process_left) == count(candidates)

else := [{
	"name": "matches",
	"action": "update",
	"key": input.containerID,
	"value": [candidates[index] | some index in process_left],
}]
