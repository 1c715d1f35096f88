# Platform rules.
package framework

# METADATA
# description: What a platform adds to every container (generation 0.5.0).
platform_additions contains rule if {
	is_current(policy_generation)
	some rule in data.policy.platform_rules
}

platform_additions contains rule if {
	some part in included_parts
	some rule in part.platform_rules
}

# METADATA
# description: The descriptions as candidates, one for each platform rule.
with_platform(descriptions) := descriptions if count(platform_additions) == 0

with_platform(descriptions) := {extended |
	some description in descriptions
	some rule in platform_additions
	extended := object.union(description, {
		"env_rules": array.concat(description.env_rules, object.get(rule, "env_rules", [])),
		"mounts": array.concat(description.mounts, object.get(rule, "mounts", [])),
	})
} if {
	count(platform_additions) > 0
}
