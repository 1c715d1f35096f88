# Transparency trust lists.
package framework

# METADATA
# description: Keys of transparency ledgers are offered; the answer names the ledgers whose keys count.
load_transparency_trust_list := {"allowed": true, "allowed_ledgers": [l | some l in ledgers_allowed]} if {
	input.rule == "load_transparency_trust_list"
	count(codes) == 0
}

else := refusal

codes contains "ttl.no_match" if {
	input.rule == "load_transparency_trust_list"
	count(trust_rules) == 0
}

codes contains "ttl.no_ledger" if {
	input.rule == "load_transparency_trust_list"
	count(trust_rules) > 0
	count(ledgers_allowed) == 0
}

trust_rule_sources contains rule if some rule in data.policy.transparency_trust_lists

trust_rule_sources contains rule if {
	some part in included_parts
	some rule in part.transparency_trust_lists
}

trust_rules contains rule if {
	some rule in trust_rule_sources
	rule.issuer == input.issuer
	rule.subject == input.subject
	svn_at_least(input.svn, rule.minimum_svn)
}

ledgers_allowed contains ledger if {
	some rule in trust_rules
	some ledger in input.ledgers
	ledger in rule.allowed_ledgers
}

ledgers_allowed contains ledger if {
	some rule in trust_rules
	"*" in rule.allowed_ledgers
	some ledger in input.ledgers
}
