# METADATA
# title: What the sealed server answers
# description: The decision query, the policy's versions, health, and the state patch; nothing else, and no parameters.
package system.authz

default allow := false

allow if {
	input.params == {}
	input.method == "POST"
	input.path == ["v1", "data", "gate", "decide"]
}

allow if {
	input.params == {}
	input.method == "POST"
	input.path == ["v1", "data", "gate", "versions"]
}

allow if {
	input.params == {}
	input.method == "GET"
	input.path == ["health"]
}

# Which paths a patch may touch is not visible here: the bundle's roots decide that.
allow if {
	input.params == {}
	input.method == "PATCH"
	input.path == ["v1", "data"]
}
