package authz_test

import data.system.authz

permitted := [
	{"method": "POST", "path": ["v1", "data", "gate", "decide"], "params": {}},
	{"method": "POST", "path": ["v1", "data", "gate", "versions"], "params": {}},
	{"method": "GET", "path": ["health"], "params": {}},
	{"method": "PATCH", "path": ["v1", "data"], "params": {}},
]

test_permitted[index] if {
	some index, request in permitted
	authz.allow with input as request
}

test_parameters_are_refused[index] if {
	some index, request in permitted
	not authz.allow with input as object.union(request, {"params": {"explain": ["full"]}})
}

refused := [
	{"method": "GET", "path": ["v1", "data"], "params": {}},
	{"method": "PUT", "path": ["v1", "policies", "x"], "params": {}},
	{"method": "POST", "path": ["v1", "data"], "params": {}},
	{"method": "POST", "path": ["v1", "query"], "params": {}},
	{"method": "PATCH", "path": ["v1", "data", "policy"], "params": {}},
	{"method": "GET", "path": ["metrics"], "params": {}},
]

test_refused[index] if {
	some index, request in refused
	not authz.allow with input as request
}
