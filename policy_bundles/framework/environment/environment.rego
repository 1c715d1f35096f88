# Environment variables.
#
# Fixed texts are compared as a set, once; only what is left meets the patterns. With rules and variables by the
# dozen this is what keeps a decision in milliseconds.
package framework

# METADATA
# description: RE2 over the whole text. The pattern has to compile by itself, or it could close the group early.
matches_whole(pattern, text) if {
	regex.is_valid(pattern)
	regex.match(concat("", [`\A(?:`, pattern, `)\z`]), text)
}

env_requested := {variable | some variable in input.envList}

env_literals(rules) := whole | pairs if {
	whole := {rule.pattern | some rule in rules; rule.strategy == "string"}
	pairs := {text |
		some rule in rules
		rule.name_strategy == "string"
		rule.value_strategy == "string"
		not contains(rule.name, "=")
		text := concat("=", [rule.name, rule.value])
	}
}

env_patterns(rules) := [rule | some rule in rules; env_has_pattern(rule)]

env_has_pattern(rule) if rule.strategy == "re2"

env_has_pattern(rule) if rule.name_strategy == "re2"

env_has_pattern(rule) if rule.value_strategy == "re2"

# METADATA
# description: The variables out of `variables` that some rule admits.
env_admitted(rules, variables) := fixed | {variable |
	some variable in (variables - fixed)
	some rule in patterns
	env_fits(rule, variable)
} if {
	fixed := variables & env_literals(rules)
	patterns := env_patterns(rules)
}

# METADATA
# description: Whether one rule, in either of its forms, admits one variable.
env_fits(rule, variable) if text_fits(rule.strategy, rule.pattern, variable)

env_fits(rule, variable) if {
	sign := indexof(variable, "=")
	sign >= 0
	text_fits(rule.name_strategy, rule.name, substring(variable, 0, sign))
	text_fits(rule.value_strategy, rule.value, substring(variable, sign + 1, -1))
}

text_fits("string", pattern, text) if pattern == text

text_fits("re2", pattern, text) if matches_whole(pattern, text)

# METADATA
# description: Every required rule has a variable among `variables`.
env_complete(rules, variables) if {
	required := [rule | some rule in rules; object.get(rule, "required", false) != false]
	every rule in required {
		env_met(rule, variables)
	}
}

env_met(rule, variables) if {
	rule.strategy == "string"
	rule.pattern in variables
}

env_met(rule, variables) if {
	not rule.strategy == "string"
	some variable in variables
	env_fits(rule, variable)
}

# A rule with both forms: the pair may be met where the text is not.
env_met(rule, variables) if {
	rule.strategy == "string"
	rule.name_strategy
	some variable in variables
	env_fits(rule, variable)
}

env_dropping if data.policy.allow_environment_variable_dropping == true
