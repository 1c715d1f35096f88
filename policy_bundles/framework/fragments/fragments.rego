# Signed additions.
#
# Asked twice. Before the text is compiled: is this issuer's feed wanted. After it, once for each set of values:
# is the text what the rule wants, and which parts are taken over (policy.md, section 11.4).
package framework

# METADATA
# description: A fragment is loaded.
load_fragment := {"allowed": true, "parameters": fragment_parameters} if {
	input.rule == "load_fragment"
	input.fragment_loaded == false
	count(codes) == 0
}

else := {
	"allowed": true,
	"add_module": "namespace" in fragment_includes,
	"metadata": array.concat(issuer_update, parameter_updates),
} if {
	input.rule == "load_fragment"
	input.fragment_loaded == true
	count(codes) == 0
}

else := refusal

codes contains code if {
	input.rule == "load_fragment"
	some code in fragment_codes
}

# Rules of the policy and of fragments that were included with their own rules.
fragment_rules contains rule if {
	some written in data.policy.fragments
	rule := describe_fragment(written, policy_generation)
}

fragment_rules contains rule if {
	policy_generation
	some part in included_parts
	some rule in part.fragments
}

fragment_of_issuer contains rule if {
	some rule in fragment_rules
	rule.issuer == input.issuer
}

fragment_named contains rule if {
	some rule in fragment_of_issuer
	rule.feed == input.feed
}

fragment_fitting contains rule if {
	some rule in fragment_named
	svn_reached(rule)
	receipts_met(rule)
}

fragment_codes contains "fragment.issuer" if count(fragment_of_issuer) == 0

fragment_codes contains "fragment.feed" if {
	count(fragment_of_issuer) > 0
	count(fragment_named) == 0
}

fragment_codes contains "fragment.svn_type" if {
	count(fragment_named) > 0
	every rule in fragment_named {
		svn_incomparable(rule)
	}
}

fragment_codes contains "fragment.svn_low" if {
	count(fragment_named) > 0
	not fragment_svn_missing
	every rule in fragment_named {
		not svn_reached(rule)
	}
	some rule in fragment_named
	not svn_incomparable(rule)
}

fragment_codes contains "fragment.receipt_missing" if {
	count(fragment_named) > 0
	every rule in fragment_named {
		not receipts_met(rule)
	}
}

# Each condition is met by some rule, and no rule meets both.
fragment_codes contains "fragment.receipt_missing" if {
	count(fragment_fitting) == 0
	some rule in fragment_named
	svn_reached(rule)
}

fragment_codes contains "fragment.ambiguous" if {
	count({as_set(rule.includes) | some rule in fragment_fitting}) > 1
}

fragment_codes contains "fragment.svn_missing" if {
	count(fragment_named) > 0
	fragment_svn_missing
}

fragment_codes contains "fragment.svn_mismatch" if {
	input.fragment_loaded == true
	input.has_header_svn == true
	text_svn := data[input.namespace].svn
	not same_number(text_svn, input.header_svn)
}

fragment_codes contains "fragment.framework_missing" if {
	input.fragment_loaded == true
	not fragment_versioned
}

fragment_versioned if semver.is_valid(fragment_generation)

fragment_codes contains "fragment.framework_ahead" if {
	input.fragment_loaded == true
	semver.compare(fragment_generation, data.api.generation) > 0
}

fragment_svn_missing if {
	input.fragment_loaded == true
	input.has_header_svn == false
	count(fragment_text_svn) == 0
}

fragment_text_svn := [svn | svn := data[input.namespace].svn]

# METADATA
# description: The versions that have to reach the minimum, the header's, and once it is loaded the text's.
fragment_svns contains input.header_svn if input.has_header_svn == true

fragment_svns contains svn if {
	input.fragment_loaded == true
	some svn in fragment_text_svn
}

svn_reached(rule) if {
	not fragment_svn_missing
	every svn in fragment_svns {
		svn_at_least(svn, rule.minimum_svn)
	}
}

svn_incomparable(rule) if {
	some svn in fragment_svns
	not svn_comparable(svn, rule.minimum_svn)
}

receipts_met(rule) if {
	every wanted in object.get(rule, "required_receipts", []) {
		receipt_met(wanted)
	}
}

receipt_met("*") if count(input.receipts) > 0

receipt_met(wanted) if {
	startswith(wanted, "TTL:")
	some receipt in input.receipts
	substring(wanted, 4, -1) in receipt.ttl_subjects
}

receipt_met(wanted) if {
	some receipt in input.receipts
	receipt.issuer == wanted
}

fragment_includes := includes if {
	some rule in fragment_fitting
	includes := as_set(rule.includes)
}

# Values of nested rules first.
fragment_parameters := array.concat(nested, direct) if {
	nested := [entry.parameters |
		some entry in object.get(data.metadata, "fragment_parameters", [])
		entry.issuer == input.issuer
		entry.feed == input.feed
	]
	direct := [values |
		some values in {rule.parameters |
			some written in data.policy.fragments
			rule := describe_fragment(written, policy_generation)
			rule in fragment_fitting
		}
	]
}
