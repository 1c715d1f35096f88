# `make` alone prints this help, made from the comments behind `##`.
.DEFAULT_GOAL := help
SHELL := bash
PY := .venv/bin/python
PYTEST := $(PY) -m pytest

help: ## this text
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 14

env: ## installs what is missing; leaves .venv/bin/parma
	@.ci/env

env-host: ## the same as env
	@.ci/env host

# tests/vm needs a UVM image in $$PARMA_UVM: until guest/image/build.py exists nothing here can make one.
test: env ## every test but tests/vm (no UVM image can be built yet); ends with pytest's summary
	@$(PYTEST) --ignore=tests/vm

test-vm: env ## storage and network of the guest in a real VM; needs a UVM image in $$PARMA_UVM
	@$(PYTEST) tests/vm

test-fast: env-host ## no VM, no containerd, under two minutes
	@$(PYTEST) -m "not vm and not containerd and not slow"

lint: env-host ## format, lint, types, import contracts, generated code, Rego
	@.venv/bin/ruff format --check .
	@.venv/bin/ruff check .
	@.venv/bin/mypy
	@.venv/bin/lint-imports
	@$(PY) -m parma_api.proto.generate --check
	@$(PYTEST) -q tests/policy/test_bundles.py

proto: env-host ## regenerates api/parma_api/gen from the protos
	@$(PY) -m parma_api.proto.generate

bench: env ## measures the cost of a decision
	@cd tests/bench && ../../$(PY) bench_policy.py

requirements: env-host ## renews the hash-pinned requirements after a change of pyproject.toml
	@.venv/bin/uv pip compile --quiet --generate-hashes --no-emit-index-url --universal --python-version 3.11 \
	  --all-extras --group dev pyproject.toml -o .ci/requirements.txt

clean: ## removes what the other targets made (the cache outside the tree too)
	@rm -rf .venv build dist bench.json .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	@find . -name __pycache__ -prune -exec rm -rf {} +
	@rm -rf "$${PARMA_CACHE:-$$HOME/.cache/parma}"

.PHONY: help env env-host test test-vm test-fast lint proto bench requirements clean
