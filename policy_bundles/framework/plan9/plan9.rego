# Host shares.
package framework

# METADATA
# description: A share is attached for one container.
plan9_mount := {
	"allowed": true,
	"metadata": [{"name": "p9mounts", "action": "add", "key": input.target, "value": plan9_owner}],
} if {
	input.rule == "plan9_mount"
	count(codes) == 0
}

else := refusal

codes contains "plan9.target_in_use" if {
	input.rule == "plan9_mount"
	data.metadata.p9mounts[input.target]
}

codes contains "plan9.target_invalid" if {
	input.rule == "plan9_mount"
	not plan9_owner
}

# The id is read out of the target and looked up, so that the cost does not grow with the containers.
plan9_owner := id if {
	prefix := concat("", [input.rootPrefix, "/"])
	startswith(input.target, prefix)
	id := split(substring(input.target, count(prefix), -1), "/")[0]
	data.metadata.matches[id]
	below := substring(input.target, count(prefix) + count(id), -1)
	matches_whole(input.mountPathPrefix, below)
}

# METADATA
# description: A share is detached.
plan9_unmount := {
	"allowed": true,
	"metadata": [{"name": "p9mounts", "action": "remove", "key": input.unmountTarget}],
} if {
	input.rule == "plan9_unmount"
	count(codes) == 0
}

else := refusal

codes contains "plan9.not_mounted" if {
	input.rule == "plan9_unmount"
	not data.metadata.p9mounts[input.unmountTarget]
}
