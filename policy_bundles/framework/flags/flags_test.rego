package framework_test

import data.framework

test_flags[rule] if {
	some rule, flag in framework.flag_names
	off := framework.codes with input as {"rule": rule} with data.policy as base
	off == {"flag.off"}
	on := framework.codes with input as {"rule": rule} with data.policy as object.union(base, {flag: true})
	on == set()
}

test_flag_points if {
	all_on := {flag: true | some flag in framework.flag_names}
	properties := framework.get_properties with input as {"rule": "get_properties"} with data.policy as all_on
	stacks := framework.dump_stacks with input as {"rule": "dump_stacks"} with data.policy as all_on
	logging := framework.runtime_logging with input as {"rule": "runtime_logging"} with data.policy as all_on
	network := framework.host_network with input as {"rule": "host_network"} with data.policy as all_on
	{r.allowed | some r in [properties, stacks, logging, network]} == {true}
	other := framework.host_network with input as {"rule": "dump_stacks"} with data.policy as all_on
	not other.allowed
}

test_ports if {
	policy := {"allow_port_forward": [80]}
	asked := {"rule": "port_forward", "port": 80, "protocol": "tcp"}
	listed := framework.port_forward with input as asked with data.policy as policy
	listed.allowed
	refused := framework.port_forward with input as object.union(asked, {"protocol": "udp"}) with data.policy as policy
	refused.reason_codes == ["port.not_allowed"]
}
