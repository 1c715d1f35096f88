# Why a process is refused.
#
# A check's code is reported if no candidate passes that check alone; if each check is passed by some candidate and
# none passes all, that is the code.
package framework

codes contains code if {
	input.rule in {"create_container", "exec_in_container", "exec_external"}
	some code in process_codes
}

process_codes contains "container.already_started" if {
	input.rule == "create_container"
	container_started
}

process_codes contains "container.not_started" if {
	input.rule == "exec_in_container"
	not container_started
}

process_codes contains "container.unknown" if {
	input.rule == "create_container"
	not container_started
	count(candidates) == 0
}

process_codes contains code if {
	codes_apply
	some code in (fixed_checks[input.rule] - {"process.mounts"})
	every checks in failed {
		code in checks
	}
}

process_codes contains "process.mounts" if {
	codes_apply
	input.rule == "create_container"
	some index in mounts_to_judge
	mount := input.mounts[index]
	every candidate in candidates {
		not mount_admitted(candidate, mount)
	}
}

process_codes contains "process.devices" if devices_named

process_codes contains "process.env" if {
	codes_apply
	not env_dropping
	fitting := union({env_admitted_by[index] | some index, _ in candidates})
	count(env_requested - fitting) > 0
}

process_codes contains "process.env_required" if {
	codes_apply
	some index in fixed_left
	not env_complete(candidates[index].env_rules, env_kept)
}

process_codes contains "process.env_undecidable" if {
	codes_apply
	env_dropping
	count(env_largest) > 1
}

process_codes contains "process.capabilities" if {
	codes_apply
	input.rule != "exec_external"
	count(env_left) > 0
	capabilities_kept
	count(process_left) == 0
}

process_codes contains "process.capabilities_undecidable" if {
	codes_apply
	input.rule != "exec_external"
	capability_dropping
	count(capabilities_largest) > 1
}

process_codes contains "process.stdio_undecidable" if {
	codes_apply
	input.rule != "exec_in_container"
	count(process_left) > 0
	not stdio_decided
}

process_codes contains "framework.version_missing" if {
	input.rule == "exec_external"
	not policy_generation
}

# What was started, or was not, has nothing to compare with.
codes_apply if input.rule == "exec_external"

codes_apply if {
	input.rule == "exec_in_container"
	container_started
}

codes_apply if {
	input.rule == "create_container"
	not container_started
}

# Each check is passed by some candidate, none passes all.
codes contains "process.no_single_candidate" if {
	codes_apply
	not process_allowed
	count(process_codes - {"process.env_required"}) == 0
	count(candidates) > 1
}
