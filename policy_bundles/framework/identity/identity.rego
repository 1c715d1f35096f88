# User, groups, umask, new privileges.
package framework

user_fits(container) if {
	identity := container.user
	idname_fits(identity.user_idname, input.user)
	identity.umask == input.umask
	every group in input.groups {
		group_fits(identity.group_idnames, group)
	}
}

group_fits(rules, group) if {
	some rule in rules
	idname_fits(rule, group)
}

idname_fits(rule, _) if rule.strategy == "any"

idname_fits(rule, who) if {
	rule.strategy == "id"
	rule.pattern == who.id
}

idname_fits(rule, who) if {
	rule.strategy == "name"
	rule.pattern == who.name
}

idname_fits(rule, who) if {
	rule.strategy == "re2"
	matches_whole(rule.pattern, who.name)
}

# The policy can demand the flag; it cannot demand its absence.
new_privileges_fit(container) if container.no_new_privileges == false

new_privileges_fit(container) if {
	container.no_new_privileges == true
	input.noNewPrivileges == true
}
