# What an admitted fragment leaves behind.
package framework

# The texts that fragments bring; whole documents, so that nothing else of the module is read.
fragment_generation := data[input.namespace].framework_version

fragment_part["containers"] := [d |
	some written in data[input.namespace].containers
	d := describe_container(written, fragment_generation)
] if {
	"containers" in fragment_includes
}

fragment_part["external_processes"] := [d |
	some written in data[input.namespace].external_processes
	d := describe_external(written, fragment_generation)
] if {
	"external_processes" in fragment_includes
}

fragment_part["fragments"] := [d |
	some written in data[input.namespace].fragments
	d := describe_fragment(written, fragment_generation)
] if {
	"fragments" in fragment_includes
}

fragment_part["transparency_trust_lists"] := [rule |
	some rule in data[input.namespace].transparency_trust_lists
] if {
	"transparency_trust_lists" in fragment_includes
	is_current(fragment_generation)
}

fragment_part["platform_rules"] := [rule | some rule in data[input.namespace].platform_rules] if {
	"platform_rules" in fragment_includes
	is_current(fragment_generation)
}

earlier_feeds := object.get(data.metadata.issuers[input.issuer], "feeds", {})

default feeds_so_far := {}

feeds_so_far := earlier_feeds

earlier_parts := object.get(feeds_so_far, input.feed, [])

# Newest first; the same part a second time changes nothing.
issuer_update := [] if fragment_part in earlier_parts

else := [{
	"name": "issuers",
	"action": "update",
	"key": input.issuer,
	"value": {"feeds": feeds},
}] if {
	parts := array.concat([fragment_part], earlier_parts)
	others := object.remove(feeds_so_far, [input.feed])
	feeds := object.union(others, {input.feed: parts})
}

parameter_updates := [command |
	some rule in fragment_part.fragments
	command := {
		"name": "fragment_parameters",
		"type": "set",
		"action": "add",
		"value": {"issuer": rule.issuer, "feed": rule.feed, "parameters": rule.parameters},
	}
]
