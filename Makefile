# `make` alone prints this help, made from the comments behind `##`.
.DEFAULT_GOAL := help
SHELL := bash
PY := .venv/bin/python
PYTEST := $(PY) -m pytest

help: ## this text
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 14

env: ## installs what is missing; leaves .venv/bin/parma
	@.ci/env

env-host: ## the same without the UVM images
	@.ci/env host

demo: env ## the main job, shown: a group under its policy, and six attacks on it
	@.venv/bin/parma demo

test: env ## every test, with real VMs and a real cluster; ends with pytest's summary
	@$(PYTEST)

test-fast: env-host ## no VM, no containerd, about four minutes
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

uvm: env-host ## both utility VM images, release and stub; prints their folders
	@$(PY) guest/image/build.py --variant both

measurement: uvm ## what a report of the release must say: image and firmware from their lock files, measured
	@cache="$${PARMA_CACHE:-$$HOME/.cache/parma}"; ovmf=$$($(PY) -m tests.tools.ovmf_amdsev) && \
	  .venv/bin/parma measure --image "$$cache/uvm/release/current" --ovmf "$$ovmf"

kind: env ## Parma in a Kubernetes cluster, shown; KEEP=1 leaves the cluster
	@$(PY) -m tests.kubernetes.cluster demo $(if $(KEEP),--keep)

test-kubernetes: env ## the tests in a cluster alone
	@$(PYTEST) -m kubernetes tests/kubernetes

soak: env ## the long tests in a cluster: a hundred restarts, a hundred pods, a token's renewal
	@$(PY) -m tests.kubernetes.soak $(SOAK)

bench: env ## what things cost, as a table and bench.json; 1 if a limit is not held
	@$(PY) -m tests.bench

critest: env ## the CRI's conformance suite with parma and with runc on three containerds: docs/conformance.md; over an hour
	@$(PY) -m tests.critest $(if $(FRESH),--fresh)

prove: env-host ## explores the invariant as deep as ten minutes allow
	@$(PY) -m tests.prove

requirements: env-host ## renews the hash-pinned requirements after a change of pyproject.toml
	@.venv/bin/uv pip compile --quiet --generate-hashes --no-emit-index-url --universal --python-version 3.11 \
	  --all-extras --group dev pyproject.toml -o .ci/requirements.txt

clean: ## removes what the other targets made (the cache outside the tree too)
	@rm -rf .venv build dist bench.json .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	@find . -name __pycache__ -prune -exec rm -rf {} +
	@rm -rf "$${PARMA_CACHE:-$$HOME/.cache/parma}"

.PHONY: help env env-host uvm measurement demo test test-fast lint proto kind test-kubernetes critest soak bench prove requirements clean
