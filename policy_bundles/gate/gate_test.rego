package gate_test

import data.gate

answer(policy, rule) := result if {
	result := gate.decide with input as {"rule": rule}
		with data.policy as policy
		with data.gate_state.generation as 7
		with data.metadata as {}
}

current := {"api_version": "0.12.0", "dump_stacks": {"allowed": true, "x": 1}, "get_properties": {}, "reason": {"why": 1}}

test_result_is_overlaid if {
	found := answer(current, "dump_stacks")
	found == {"generation": 7, "source": "policy", "results": [{"allowed": true, "x": 1}], "reason": []}
}

source_cases := [
	{"policy": {}, "rule": "dump_stacks", "source": "unversioned", "results": []},
	{"policy": {"api_version": "x"}, "rule": "dump_stacks", "source": "unversioned", "results": []},
	{"policy": current, "rule": "get_properties", "source": "missing", "results": []},
	{"policy": current, "rule": "port_forward", "source": "default", "results": [{"allowed": false}]},
	{"policy": {"api_svn": "0.1.0"}, "rule": "dump_stacks", "source": "default", "results": [{"allowed": true}]},
	{
		"policy": {"api_version": "0.12.0", "dump_stacks": {"x": 1}},
		"rule": "dump_stacks",
		"source": "policy_default",
		"results": [{"allowed": true, "x": 1}],
	},
	{"policy": {"api_version": "0.12.0", "dump_stacks": [1]}, "rule": "dump_stacks", "source": "policy", "results": [[1]]},
]

test_sources[index] if {
	some index, c in source_cases
	found := answer(c.policy, c.rule)
	found.source == c.source
	found.results == c.results
}

test_reason_comes_with_a_refusal_only if {
	found := answer(current, "get_properties")
	found.reason == [{"why": 1}]
}

test_framework_answers_for_writable_devices_of_older_policies if {
	found := gate.decide with input as {"rule": "rw_unmount_device", "unmountTarget": "/m"}
		with data.policy as {"api_version": "0.1.0"}
		with data.gate_state.generation as 1
		with data.metadata as {"rw_devices": {"/m": true}}
	found.source == "framework"
	found.results[0].allowed
}

test_network_files_are_default_mounts_for_one_question if {
	mount := {"destination": "/etc/hosts", "source": "/h", "options": ["bind"], "type": "bind"}
	found := gate.decide with input as {"rule": "dump_stacks", "networkMounts": [mount]}
		with data.policy as current
		with data.gate_state.generation as 1
	found.results[0].allowed
}

test_versions if {
	found := gate.versions with data.policy as {"api_svn": "0.1.0", "framework_svn": "0.2.0"}
		with data.gate_state.generation as 1
	found == {"generation": 1, "api": ["0.1.0"], "framework": ["0.2.0"]}
	bare := gate.versions with data.policy as {} with data.gate_state.generation as 1
	bare == {"generation": 1, "api": [], "framework": []}
}
