package framework_test

import data.framework

rule_a := {
	"issuer": "i",
	"feed": "f",
	"minimum_svn": "2",
	"includes": ["containers"],
	"parameters": {"a": 1},
	"required_receipts": ["*", "TTL:lists/main", "ledger"],
}

admitting := object.union(base, {"fragments": [rule_a]})

first := {
	"rule": "load_fragment",
	"issuer": "i",
	"feed": "f",
	"namespace": "frag",
	"fragment_loaded": false,
	"has_header_svn": true,
	"header_svn": 2,
	"receipts": [{"issuer": "ledger", "ttl_subjects": ["lists/main"]}],
}

test_first_question_gives_the_values if {
	nested := {"fragment_parameters": [
		{"issuer": "i", "feed": "f", "parameters": {"n": 1}},
		{"issuer": "i", "feed": "other", "parameters": {"n": 2}},
	]}
	result := framework.load_fragment with input as first with data.policy as admitting with data.metadata as nested
	result == {"allowed": true, "parameters": [{"n": 1}, {"a": 1}]}
}

first_cases := {
	"fragment.issuer": {"issuer": "x"},
	"fragment.feed": {"feed": "x"},
	"fragment.svn_low": {"header_svn": 1},
	"fragment.receipt_missing": {"receipts": []},
}

test_first_question_refused[code] if {
	some code, change in first_cases
	result := framework.load_fragment with input as object.union(first, change)
		with data.policy as admitting
		with data.metadata as {}
	result.reason_codes == [code]
}

test_rules_that_disagree_are_ambiguous if {
	other := object.union(rule_a, {"includes": ["namespace"]})
	result := framework.load_fragment with input as first
		with data.policy as object.union(base, {"fragments": [rule_a, other]})
		with data.metadata as {}
	result.reason_codes == ["fragment.ambiguous"]
}

test_conditions_met_by_different_rules_admit_nothing if {
	strict := object.union(rule_a, {"minimum_svn": "9", "required_receipts": []})
	result := framework.load_fragment with input as object.union(first, {"receipts": []})
		with data.policy as object.union(base, {"fragments": [rule_a, strict]})
		with data.metadata as {}
	not result.allowed
}

second := object.union(first, {"fragment_loaded": true})

module := {
	"svn": 2,
	"framework_version": "0.5.0",
	"containers": [container],
	"external_processes": [external_rule],
	"fragments": [object.union(rule_a, {"feed": "inner"})],
	"transparency_trust_lists": [{"issuer": "i"}],
	"platform_rules": [{"mounts": []}],
}

including(parts) := object.union(base, {"fragments": [object.union(rule_a, {"includes": parts})]})

test_second_question_takes_over_what_is_included if {
	result := framework.load_fragment with input as second
		with data.policy as admitting
		with data.metadata as {}
		with data.frag as module
	result.add_module == false
	result.metadata == [{
		"name": "issuers",
		"action": "update",
		"key": "i",
		"value": {"feeds": {"f": [{"containers": [container]}]}},
	}]
}

test_every_part_can_be_included if {
	parts := [
		"containers", "external_processes", "fragments", "transparency_trust_lists", "platform_rules",
		"namespace", "unknown",
	]
	result := framework.load_fragment with input as second
		with data.policy as including(parts)
		with data.metadata as {"issuers": {"i": {"feeds": {"f": [{"x": 1}], "g": [{"y": 1}]}}}}
		with data.frag as module
	result.add_module
	feeds := result.metadata[0].value.feeds
	count(feeds.f) == 2
	count(feeds.f[0]) == 5
	feeds.g == [{"y": 1}]
	result.metadata[1].value == {"issuer": "i", "feed": "inner", "parameters": {"a": 1}}
}

test_loaded_again_changes_nothing if {
	result := framework.load_fragment with input as second
		with data.policy as admitting
		with data.metadata as {"issuers": {"i": {"feeds": {"f": [{"containers": [container]}]}}}}
		with data.frag as module
	result.metadata == []
}

second_cases := {
	"fragment.svn_mismatch": {"asked": {}, "text": {"svn": 3}},
	"fragment.svn_missing": {"asked": {"has_header_svn": false, "header_svn": null}, "text": {"svn": null}},
	"fragment.svn_low": {"asked": {"has_header_svn": false, "header_svn": null}, "text": {"svn": "1"}},
	"fragment.svn_type": {"asked": {"has_header_svn": false, "header_svn": null}, "text": {"svn": "1.0.0"}},
	"fragment.framework_ahead": {"asked": {}, "text": {"framework_version": "9.0.0"}},
	"fragment.framework_missing": {"asked": {}, "text": {"framework_version": null}},
}

without_nulls(document) := {name: value | some name, value in document; value != null}

test_second_question_refused[code] if {
	some code, c in second_cases
	result := framework.load_fragment with input as object.union(second, c.asked)
		with data.policy as admitting
		with data.metadata as {}
		with data.frag as without_nulls(object.union(module, c.text))
	code in result.reason_codes
}

test_older_fragment_rules_stand_for_empty_values if {
	old := {"framework_version": "0.2.3", "fragments": [object.remove(rule_a, ["parameters"])]}
	result := framework.load_fragment with input as first with data.policy as old with data.metadata as {}
	result.parameters == [{}]
}

svn_cases := [
	[10, "9", true], ["10", 9, true], ["1.2.3", "1.2.0", true], ["1", "2", false], ["1.0.0", "1", false],
	["x", 1, false], ["-1", 0, false],
]

test_versions[index] if {
	some index, c in svn_cases
	found := count([1 | framework.svn_at_least(c[0], c[1])])
	found == count([1 | c[2]])
}

trusting := {"transparency_trust_lists": [
	{"issuer": "i", "subject": "s", "minimum_svn": 3, "allowed_ledgers": ["a", "b"]},
	{"issuer": "i", "subject": "w", "minimum_svn": 1, "allowed_ledgers": ["*"]},
]}

trust := {"rule": "load_transparency_trust_list", "issuer": "i", "subject": "s", "svn": 3, "ledgers": ["b", "z"]}

test_trust_lists if {
	common := framework.load_transparency_trust_list with input as trust with data.policy as trusting
		with data.metadata as {}
	common == {"allowed": true, "allowed_ledgers": ["b"]}
	wide := framework.load_transparency_trust_list with input as object.union(trust, {"subject": "w"})
		with data.policy as {}
		with data.metadata as {"issuers": {"x": {"feeds": {"y": [trusting]}}}}
	wide.allowed_ledgers == ["b", "z"]
	low := framework.load_transparency_trust_list with input as object.union(trust, {"svn": 2})
		with data.policy as trusting
		with data.metadata as {}
	low.reason_codes == ["ttl.no_match"]
	none := framework.load_transparency_trust_list with input as object.union(trust, {"ledgers": ["z"]})
		with data.policy as trusting
		with data.metadata as {}
	none.reason_codes == ["ttl.no_ledger"]
}
