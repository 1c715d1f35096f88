# Mounts of a container.
package framework

# METADATA
# description: Every mount of the request fits some rule of the container or one that all containers have.
mounts_fit(container) if {
	every index in mounts_to_judge {
		mount_admitted(container, input.mounts[index])
	}
}

# What every container may have is judged once, not once for each candidate.
mounts_to_judge := {index | some index, mount in input.mounts; not mount_by_default(mount)}

mount_by_default(mount) if {
	some rule in data.defaultMounts
	rule.destination == mount.destination
	mount_fits(mount, rule)
}

# The pause container's own sysfs is writable.
mount_by_default(mount) if {
	input.isSandboxContainer == true
	mount.destination == "/sys"
	mount_fits(mount, {
		"destination": "/sys",
		"type": "sysfs",
		"source": "sysfs",
		"options": ["nosuid", "noexec", "nodev", "rw"],
	})
}

mount_admitted(container, mount) if {
	some rule in container.mounts
	mount_fits(mount, rule)
}

mount_admitted(container, mount) if {
	container.allow_elevated == true
	some rule in data.privilegedMounts
	mount_fits(mount, rule)
}

mount_fits(mount, rule) if {
	mount.destination == rule.destination
	mount.destination != ""
	mount.type == rule.type
	lists_equal(mount.options, rule.options)
	source_fits(rule.source, mount.source)
}

source_fits(rule_source, source) if rule_source == source

# Everywhere in the pattern: its alternatives name the directory too.
source_fits(rule_source, source) if {
	startswith(rule_source, data.sandboxPrefix)
	matches_whole(replace(rule_source, data.sandboxPrefix, input.sandboxDir), source)
}

source_fits(rule_source, source) if {
	startswith(rule_source, data.hugePagesPrefix)
	matches_whole(replace(rule_source, data.hugePagesPrefix, input.hugePagesDir), source)
}

source_fits(rule_source, source) if {
	startswith(rule_source, data.plan9Prefix)
	data.metadata.p9mounts[source] == input.containerID
}
