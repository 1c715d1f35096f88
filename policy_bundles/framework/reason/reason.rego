# Reasons.
#
# What policies bind as `reason`; it reads the trace that the verdict came from.
package framework

refusal := {"allowed": false, "reason_codes": [code | some code in codes]}

reason := {"errors": errors, "error_objects": error_objects}

errors contains text if {
	some code in codes
	text := object.get(texts, code, code)
}

default error_objects := null

# The nearest candidates: what of each does not fit.
error_objects := [object_ |
	some pair in array.slice(sort([[count(checks), index] | some index, checks in failed]), 0, 3)
	object_ := candidate_object(pair[1])
] if {
	input.rule in {"create_container", "exec_in_container", "exec_external"}
	count(candidates) > 0
}

candidate_object(index) := {
	"container": candidate_name(candidates[index]),
	"differs": [difference | some check in failed[index]; difference := difference_of(check, candidates[index])],
	"variables": [variable | some variable in (env_requested - env_admitted_by[index])],
	"command": candidates[index].command,
}

candidate_name(candidate) := candidate.name if candidate.name

else := candidate.id if candidate.id

else := concat(" ", candidate.command)

difference_of("process.command", candidate) := {
	"check": "process.command",
	"expected": expected_commands(candidate),
	"got": input.argList,
}

difference_of("process.working_dir", candidate) := {
	"check": "process.working_dir",
	"expected": candidate.working_dir,
	"got": input.workingDir,
}

difference_of("process.user", candidate) := {
	"check": "process.user",
	"expected": candidate.user,
	"got": {"user": input.user, "groups": input.groups, "umask": input.umask},
}

difference_of("process.no_new_privileges", _) := {
	"check": "process.no_new_privileges",
	"expected": true,
	"got": input.noNewPrivileges,
}

difference_of("process.privileged", _) := {"check": "process.privileged", "expected": false, "got": true}

difference_of("process.seccomp", candidate) := {
	"check": "process.seccomp",
	"expected": candidate.seccomp_profile_sha256,
	"got": input.seccompProfileSHA256,
}

difference_of("process.mounts", candidate) := {
	"check": "process.mounts",
	"expected": [rule.destination | some rule in candidate.mounts],
	"got": [mount |
		some index in mounts_to_judge
		mount := input.mounts[index]
		not mount_admitted(candidate, mount)
	],
}

expected_commands(candidate) := candidate.command if input.rule != "exec_in_container"

expected_commands(candidate) := [process.command | some process in candidate.exec_processes] if {
	input.rule == "exec_in_container"
}
