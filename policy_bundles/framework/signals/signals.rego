# Signals and the end of a container.
package framework

# METADATA
# description: A signal to the first or to a further process.
signal_container_process := {"allowed": true, "metadata": signal_narrowing} if {
	input.rule == "signal_container_process"
	count(codes) == 0
}

else := refusal

codes contains "container.not_started" if {
	input.rule in {"signal_container_process", "shutdown_container"}
	not container_started
}

codes contains "signal.not_allowed" if {
	input.rule == "signal_container_process"
	container_started
	count(signal_left) == 0
}

signal_left := [candidate | some candidate in candidates; signal_fits(candidate)]

signal_fits(candidate) if {
	input.isInitProcess == true
	input.signal in candidate.signals
}

signal_fits(candidate) if {
	input.isInitProcess == false
	some process in candidate.exec_processes
	process.command == input.argList
	input.signal in process.signals
}

signal_narrowing := [] if count(signal_left) == count(candidates)

else := [{"name": "matches", "action": "update", "key": input.containerID, "value": signal_left}]

# METADATA
# description: A container is ended. `started` is kept, so that the id is used up.
shutdown_container := {
	"allowed": true,
	"metadata": [{"name": "matches", "action": "remove", "key": input.containerID}],
} if {
	input.rule == "shutdown_container"
	count(codes) == 0
}

else := refusal
