# Root file systems out of layers.
package framework

# METADATA
# description: A root file system is assembled; every description with these layers becomes a candidate.
mount_overlay := {
	"allowed": true,
	"metadata": [
		{"name": "matches", "action": "add", "key": input.containerID, "value": [c | some c in overlay_candidates]},
		{"name": "overlayTargets", "action": "add", "key": input.target, "value": true},
	],
} if {
	input.rule == "mount_overlay"
	count(codes) == 0
}

else := refusal

codes contains "overlay.id_in_use" if {
	input.rule == "mount_overlay"
	data.metadata.matches[input.containerID]
}

codes contains "overlay.target_in_use" if {
	input.rule == "mount_overlay"
	data.metadata.overlayTargets[input.target]
}

codes contains "overlay.no_layers" if {
	input.rule == "mount_overlay"
	count(input.layerPaths) == 0
}

codes contains "overlay.no_match" if {
	input.rule == "mount_overlay"
	count(input.layerPaths) > 0
	not overlay_matched
}

codes contains "framework.version_missing" if {
	input.rule in {"mount_overlay", "exec_external", "load_fragment"}
	not policy_generation
}

overlay_matched if count(overlay_candidates) > 0

# Digests of the mounted layers, base first as descriptions have them; undefined if a path is not mounted.
overlay_digests := array.reverse(digests) if {
	digests := [data.metadata.devices[path] | some path in input.layerPaths]
	count(digests) == count(input.layerPaths)
	count(digests) > 0
}

# Layers first: what does not fit is never rebuilt.
overlay_candidates := with_platform(described | included) if {
	generation := policy_generation
	described := {d |
		some written in data.policy.containers
		written.layers == overlay_digests
		d := describe_container(written, generation)
	}
	included := {container |
		some part in included_parts
		some container in part.containers
		container.layers == overlay_digests
	}
}

# METADATA
# description: A root file system is taken apart. The candidates are kept, so that the id is used up.
unmount_overlay := {
	"allowed": true,
	"metadata": [{"name": "overlayTargets", "action": "remove", "key": input.unmountTarget}],
} if {
	input.rule == "unmount_overlay"
	count(codes) == 0
}

else := refusal

codes contains "overlay.not_mounted" if {
	input.rule == "unmount_overlay"
	not data.metadata.overlayTargets[input.unmountTarget]
}
