# METADATA
# title: One answer for one question
# description: |
#   Finds the rule that answers, applies the defaults of the API table and gives verdict and reason from one
#   evaluation. The agent reads the members below and nothing else, and only if the generation is the one it expects.
package gate

decide := answer if not input.networkMounts

# The pod's network files count as default mounts for this one question.
decide := extended if {
	mounts := array.concat(data.defaultMounts, input.networkMounts)
	extended := answer with data.defaultMounts as mounts
}

answer := {
	"generation": data.gate_state.generation,
	"source": source,
	"results": results,
	"reason": [reason | not allowed; reason := data.policy.reason],
}

versions := {
	"generation": data.gate_state.generation,
	"api": policy_versions,
	"framework": framework_versions,
}

default policy_versions := []

policy_versions := [v | v := data.policy.api_version] if data.policy.api_version

else := [v | v := data.policy.api_svn]

default framework_versions := []

framework_versions := [v | v := data.policy.framework_version] if data.policy.framework_version

else := [v | v := data.policy.framework_svn]

row := data.api.points[input.rule]

asked := [result | result := data.policy[input.rule]; result != {}]

source := "unversioned" if not versioned

else := "policy" if stated

else := "policy_default" if count(asked) > 0

else := "missing" if covered

else := "framework" if row.framework

else := "default"

# A result that says nothing about `allowed` takes it from the table.
stated if not is_object(asked[0])

stated if "allowed" in object.keys(asked[0])

versioned if semver.is_valid(policy_versions[0])

covered if {
	not row.optional
	semver.compare(policy_versions[0], row.introduced) >= 0
}

results := [] if source in {"unversioned", "missing"}

else := [result | result := data.framework[input.rule]] if source == "framework"

else := [row["default"]] if source == "default"

else := [object.union(row["default"], asked[0])] if is_object(asked[0])

else := asked

allowed if results[0].allowed == true
