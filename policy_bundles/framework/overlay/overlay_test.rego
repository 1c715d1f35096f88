package framework_test

import data.framework

overlay := {"rule": "mount_overlay", "containerID": "c1", "layerPaths": ["/m1", "/m0"], "target": "/c1/rootfs"}

mounted := {"devices": {"/m0": "h0", "/m1": "h1"}}

test_overlay_records_every_candidate if {
	twins := object.union(base, {"containers": [container, object.union(container, {"name": "twin"}), container]})
	result := framework.mount_overlay with input as overlay with data.policy as twins with data.metadata as mounted
	count(result.metadata[0].value) == 2
	result.metadata[1] == {"name": "overlayTargets", "action": "add", "key": "/c1/rootfs", "value": true}
}

overlay_cases := {
	"overlay.no_match": {"change": {"layerPaths": ["/m0", "/m1"]}, "state": {}},
	"overlay.no_layers": {"change": {"layerPaths": []}, "state": {}},
	"overlay.id_in_use": {"change": {}, "state": {"matches": {"c1": []}}},
	"overlay.target_in_use": {"change": {}, "state": {"overlayTargets": {"/c1/rootfs": true}}},
}

test_overlay_refused[code] if {
	some code, c in overlay_cases
	result := framework.mount_overlay with input as object.union(overlay, c.change)
		with data.policy as base
		with data.metadata as object.union(mounted, c.state)
	result.reason_codes == [code]
}

test_without_framework_version_nothing_is_a_candidate if {
	result := framework.mount_overlay with input as overlay
		with data.policy as object.remove(base, ["framework_version"])
		with data.metadata as mounted
	"framework.version_missing" in result.reason_codes
}

test_platform_rules_multiply_candidates if {
	rules := [{"env_rules": [{"pattern": "A=1", "strategy": "string"}]}, {"mounts": [{"source": "x"}]}]
	result := framework.mount_overlay with input as overlay
		with data.policy as object.union(base, {"platform_rules": rules})
		with data.metadata as mounted
	count(result.metadata[0].value) == 2
}

test_platform_rules_of_parts_count if {
	part := {"platform_rules": [{"mounts": [{"source": "x"}]}], "containers": [object.union(container, {"name": "f"})]}
	result := framework.mount_overlay with input as overlay
		with data.policy as base
		with data.metadata as object.union(mounted, {"issuers": {"i": {"feeds": {"f": [part]}}}})
	{c.name | some c in result.metadata[0].value} == {"app", "f"}
	every c in result.metadata[0].value {
		count(c.mounts) == 2
	}
}

test_older_generation_is_filled_in_not_read if {
	old := {"api_version": "0.10.0", "framework_version": "0.1.0", "containers": [container]}
	result := framework.mount_overlay with input as overlay with data.policy as old with data.metadata as mounted
	found := result.metadata[0].value[0]
	found.user.user_idname.strategy == "any"
	found.signals == [9, 15]
	found.no_new_privileges == false
	not found.name
}

test_current_signals_stay if {
	recent := object.union(base, {"framework_version": "0.4.1"})
	result := framework.mount_overlay with input as overlay with data.policy as recent with data.metadata as mounted
	result.metadata[0].value[0].signals == [15]
}

test_description_that_lacks_a_member_of_its_generation_is_out if {
	old := {
		"api_version": "0.10.0",
		"framework_version": "0.2.3",
		"containers": [object.remove(container, ["user"])],
	}
	result := framework.mount_overlay with input as overlay with data.policy as old with data.metadata as mounted
	result.reason_codes == ["overlay.no_match"]
}

test_overlay_is_taken_apart if {
	asked := {"rule": "unmount_overlay", "unmountTarget": "/c1/rootfs"}
	result := framework.unmount_overlay with input as asked
		with data.metadata as {"overlayTargets": {"/c1/rootfs": true}}
	result.metadata == [{"name": "overlayTargets", "action": "remove", "key": "/c1/rootfs"}]
	refused := framework.unmount_overlay with input as asked with data.metadata as {}
	refused.reason_codes == ["overlay.not_mounted"]
}
