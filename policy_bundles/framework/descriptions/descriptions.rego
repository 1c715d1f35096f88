# Container descriptions and their generations.
#
# A description is read as its own generation wrote it: members that came later are filled in, not read, and a
# description that lacks a member its generation knew is out (policy.md, section 12).
package framework

policy_generation := data.policy.framework_version if data.policy.framework_version

else := data.policy.framework_svn

is_current(generation) if semver.compare(generation, data.api.generation) >= 0

container_members := {
	"layers": "0.1.0",
	"command": "0.1.0",
	"env_rules": "0.1.0",
	"working_dir": "0.1.0",
	"mounts": "0.1.0",
	"exec_processes": "0.1.0",
	"signals": "0.1.0",
	"allow_elevated": "0.1.0",
	"allow_stdio_access": "0.1.0",
	"no_new_privileges": "0.2.0",
	"user": "0.2.1",
	"capabilities": "0.2.2",
	"seccomp_profile_sha256": "0.2.3",
}

container_fillers := {
	"no_new_privileges": false,
	"user": {
		"user_idname": {"pattern": "", "strategy": "any"},
		"group_idnames": [{"pattern": "", "strategy": "any"}],
		"umask": "0022",
	},
	"capabilities": null,
	"seccomp_profile_sha256": "",
}

external_members := {"command", "env_rules", "working_dir", "allow_stdio_access"}

fragment_members := {"issuer", "feed", "minimum_svn", "includes"}

# METADATA
# description: The container description `written` by a policy or fragment of `generation`.
describe_container(written, generation) := written if is_current(generation)

describe_container(written, generation) := described if {
	not is_current(generation)
	known := {member | some member, since in container_members; semver.compare(generation, since) >= 0}
	count(known - object.keys(written)) == 0
	filled := object.union(object.remove(container_fillers, known), object.filter(written, known))
	described := object.union(filled, {"signals": implied_signals(written.signals, generation)})
}

# Before 0.4.1 a first process could always be ended.
implied_signals(signals, generation) := signals if semver.compare(generation, "0.4.1") >= 0

implied_signals(signals, generation) := [s | some s in ({s | some s in signals} | {9, 15})] if {
	semver.compare(generation, "0.4.1") < 0
}

describe_external(written, generation) := written if is_current(generation)

describe_external(written, generation) := object.filter(written, external_members) if {
	not is_current(generation)
	count(external_members - object.keys(written)) == 0
}

# METADATA
# description: A rule that admits a fragment. Older ones without parameters stand for an empty set of values.
describe_fragment(written, generation) := written if is_current(generation)

describe_fragment(written, generation) := object.union({"parameters": {}}, kept) if {
	not is_current(generation)
	count(fragment_members - object.keys(written)) == 0
	kept := object.filter(written, fragment_members | {"required_receipts", "parameters"})
}

# METADATA
# description: Parts of admitted fragments, each already in the form of the current generation.
included_parts contains part if {
	some issuer in data.metadata.issuers
	some parts in issuer.feeds
	some part in parts
}
