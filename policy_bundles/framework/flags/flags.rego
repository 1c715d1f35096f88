# Points that ask for a flag, and ports.
package framework

get_properties := flag_answer("get_properties", "allow_properties_access")

dump_stacks := flag_answer("dump_stacks", "allow_dump_stacks")

runtime_logging := flag_answer("runtime_logging", "allow_runtime_logging")

host_network := flag_answer("host_network", "allow_host_network")

flag_names := {
	"get_properties": "allow_properties_access",
	"dump_stacks": "allow_dump_stacks",
	"runtime_logging": "allow_runtime_logging",
	"host_network": "allow_host_network",
}

flag_answer(rule, flag) := {"allowed": true} if {
	input.rule == rule
	flag_on(flag)
}

else := refusal

flag_on("allow_properties_access") if data.policy.allow_properties_access == true

flag_on("allow_dump_stacks") if data.policy.allow_dump_stacks == true

flag_on("allow_runtime_logging") if data.policy.allow_runtime_logging == true

flag_on("allow_host_network") if data.policy.allow_host_network == true

codes contains "flag.off" if {
	flag := flag_names[input.rule]
	not flag_on(flag)
}

# METADATA
# description: A connection to a port of the pod's loopback.
port_forward := {"allowed": true} if {
	input.rule == "port_forward"
	count(codes) == 0
}

else := refusal

codes contains "port.not_allowed" if {
	input.rule == "port_forward"
	not port_named
}

port_named if {
	input.protocol == "tcp"
	input.port in data.policy.allow_port_forward
}
