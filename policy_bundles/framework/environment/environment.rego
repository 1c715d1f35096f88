# Environment variables.
#
# Fixed texts are compared as a set, once; only what is left meets the patterns. With rules and variables by the
# dozen this is what keeps a decision in milliseconds.
package framework

# METADATA
# description: RE2 over the whole text.
matches_whole(pattern, text) if regex.match(whole_pattern(pattern), text)

# METADATA
# description: The pattern for the whole text. It has to compile by itself, or it could close the group early.
#   Matching it once is the cheapest proof that it compiles, for OPA keeps compiled patterns.
whole_pattern(pattern) := concat("", [`\A(?:`, pattern, `)\z`]) if is_boolean(regex.match(pattern, ""))

env_requested := {variable | some variable in input.envList}

# METADATA
# description: The variables out of `variables` that some rule admits.
env_admitted(rules, variables) := admitted if {
	texts := {rule.pattern | some rule in rules; rule.strategy == "string"}
	named := [rule | some rule in rules; rule.name_strategy]
	fixed := variables & (texts | env_pairs(named))
	rest := variables - fixed
	admitted := fixed | env_by_pattern(rules, named, rest)
}

# Pairs of two fixed texts. A name with a sign in it never fits, for the variable is split at its first.
env_pairs(named) := set() if count(named) == 0

env_pairs(named) := {text |
	some rule in named
	rule.name_strategy == "string"
	rule.value_strategy == "string"
	not contains(rule.name, "=")
	text := concat("=", [rule.name, rule.value])
} if {
	count(named) > 0
}

env_by_pattern(_, _, rest) := set() if count(rest) == 0

env_by_pattern(rules, named, rest) := whole | {variable |
	some rule in named
	some variable in rest
	env_fits(rule, variable)
} if {
	count(rest) > 0
	whole := {variable |
		some rule in rules
		rule.strategy == "re2"
		pattern := whole_pattern(rule.pattern)
		some variable in rest
		regex.match(pattern, variable)
	}
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
	required := [rule | some rule in rules; rule.required != false]
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
