# Capabilities.
package framework

capability_sets := ["bounding", "effective", "inheritable", "permitted", "ambient"]

capability_dropping if {
	data.policy.allow_capability_dropping == true
	semver.compare(policy_generation, "0.2.2") >= 0
}

# METADATA
# description: The sets of a description; null stands for the default lists.
described_capabilities(container, _) := container.capabilities if container.capabilities != null

described_capabilities(container, privileged) := {
	"bounding": data.defaultPrivilegedCapabilities,
	"effective": data.defaultPrivilegedCapabilities,
	"inheritable": data.defaultPrivilegedCapabilities,
	"permitted": data.defaultPrivilegedCapabilities,
	"ambient": [],
} if {
	container.capabilities == null
	container.allow_elevated == true
	privileged == true
}

described_capabilities(container, privileged) := {
	"bounding": data.defaultUnprivilegedCapabilities,
	"effective": data.defaultUnprivilegedCapabilities,
	"inheritable": [],
	"permitted": data.defaultUnprivilegedCapabilities,
	"ambient": [],
} if {
	container.capabilities == null
	not elevated(container, privileged)
}

elevated(container, privileged) if {
	container.allow_elevated == true
	privileged == true
}

# METADATA
# description: Equal names in every set, and equal numbers of entries.
capabilities_equal(first, second) if {
	every set_name in capability_sets {
		lists_equal(first[set_name], second[set_name])
	}
}

lists_equal(first, second) if first == second

lists_equal(first, second) if {
	first != second
	count(first) == count(second)
	as_set(first) == as_set(second)
}

capabilities_common(first, second) := {set_name: common |
	some set_name in capability_sets
	common := [name | some name in (as_set(first[set_name]) & as_set(second[set_name]))]
}

capabilities_as_sets(sets) := {set_name: [name | some name in as_set(sets[set_name])] | some set_name in capability_sets}

capabilities_size(sets) := sum([count(sets[set_name]) | some set_name in capability_sets])

as_set(list) := {element | some element in list}
