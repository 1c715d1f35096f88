package framework_test

import data.framework

signal := {"rule": "signal_container_process", "containerID": "c1", "signal": 15, "isInitProcess": true, "argList": []}

signal_cases := [
	{"change": {}, "codes": set()},
	{"change": {"signal": 9}, "codes": {"signal.not_allowed"}},
	{"change": {"isInitProcess": false, "argList": ["/probe"], "signal": 2}, "codes": set()},
	{"change": {"isInitProcess": false, "argList": ["/probe"]}, "codes": {"signal.not_allowed"}},
	{"change": {"isInitProcess": false, "argList": ["/x"], "signal": 2}, "codes": {"signal.not_allowed"}},
	{"change": {"containerID": "c9"}, "codes": {"container.not_started"}},
]

test_signals[index] if {
	some index, c in signal_cases
	asked := object.union(signal, c.change)
	found := framework.codes with input as asked with data.policy as base with data.metadata as started
	found == c.codes
	result := framework.signal_container_process with input as asked
		with data.policy as base
		with data.metadata as started
	{1 | result.allowed} == {1 | count(c.codes) == 0}
}

test_signal_narrows if {
	other := object.union(container, {"name": "o", "signals": []})
	result := framework.signal_container_process with input as signal
		with data.policy as base
		with data.metadata as object.union(started, {"matches": {"c1": [container, other]}})
	result.metadata[0].value == [container]
}

test_shutdown_forgets_the_candidates_only if {
	asked := {"rule": "shutdown_container", "containerID": "c1"}
	result := framework.shutdown_container with input as asked with data.metadata as started
	result.metadata == [{"name": "matches", "action": "remove", "key": "c1"}]
	refused := framework.shutdown_container with input as asked with data.metadata as {}
	refused.reason_codes == ["container.not_started"]
}
