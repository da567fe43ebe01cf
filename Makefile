# Farthing: every command a developer needs. `make help` prints them.
.DEFAULT_GOAL := help
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:
MAKEFLAGS += --no-builtin-rules

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PACKAGES := $(wildcard libs/*/pyproject.toml services/*/pyproject.toml)
PROTOS := $(shell find protos third_party/protos -name '*.proto')
export PYTHONDONTWRITEBYTECODE :=
export HF_HUB_OFFLINE := 1

.PHONY: help
help: ## Print this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  \033[1m%-10s\033[0m %s\n", $$1, $$2}'

.PHONY: setup
setup: $(VENV)/.ready ## Make .venv with everything that services, tests and tools need

$(VENV)/.ready: requirements/dev.txt $(PACKAGES)
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@command -v uv >/dev/null || test -x $(BIN)/uv || $(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	@uv=$$(command -v uv || echo $(BIN)/uv); \
	$$uv pip install --quiet --python $(BIN)/python --no-deps --require-hashes -r requirements/dev.txt; \
	$$uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation $(patsubst %/pyproject.toml,-e ./%,$(PACKAGES))
	@touch $@

.PHONY: demo
demo: setup ## Show what Farthing saves: DATA=dir runs recorded answers instead of the support desk
	@$(BIN)/farthing demo $(if $(DATA),--data $(DATA)) $(if $(LIMIT),--limit $(LIMIT))

.PHONY: serve
serve: setup ## Run the whole suite in one process (gRPC and HTTP on this machine)
	@$(BIN)/farthing serve

.PHONY: test
test: setup ## Run all tests, on a real Postgres and Redis
	@$(BIN)/python -m pytest $(ARGS)

.PHONY: check
check: setup ## Format, lint, types, import contracts, protos, stubs
	@$(BIN)/ruff format --check --quiet . || { echo 'Format: run `make format`'; exit 1; }
	@$(BIN)/ruff check --quiet .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-cache >/tmp/farthing-imports.$$$$ 2>&1 || { cat /tmp/farthing-imports.$$$$; rm -f /tmp/farthing-imports.$$$$; exit 1; }; rm -f /tmp/farthing-imports.$$$$
	@$(BIN)/buf lint
	@$(BIN)/buf format --diff --exit-code
	@if git rev-parse --verify --quiet origin/main^{commit} >/dev/null && git cat-file -e origin/main:buf.yaml 2>/dev/null; then base=origin/main; \
	 elif git cat-file -e HEAD~1:buf.yaml 2>/dev/null; then base=HEAD~1; else base=; fi; \
	 if [ -n "$$base" ]; then $(BIN)/buf breaking --against ".git#ref=$$(git rev-parse $$base)"; else echo 'buf breaking: no earlier contracts to compare with'; fi
	@$(MAKE) --no-print-directory stubs-current
	@echo 'check: all good'

.PHONY: format
format: setup ## Format code and protos
	@$(BIN)/ruff format --quiet .
	@$(BIN)/ruff check --quiet --fix . || true
	@$(BIN)/buf format -w

define generate_stubs
	$(BIN)/python -m grpc_tools.protoc -Iprotos -Ithird_party/protos --plugin=protoc-gen-mypy=$(BIN)/protoc-gen-mypy \
	  --plugin=protoc-gen-mypy_grpc=$(BIN)/protoc-gen-mypy_grpc --python_out=$(1) --grpc_python_out=$(1) --mypy_out=$(1) --mypy_grpc_out=$(1) \
	  $(patsubst third_party/protos/%,%,$(patsubst protos/%,%,$(PROTOS))) 2> >(grep -v '^Writing ' >&2)
	find $(1)/farthing $(1)/buf -type d -exec touch {}/__init__.py ';'
	find $(1)/farthing $(1)/buf -name '*_pb2_grpc.py*' -exec sh -c 'grep -q "class .*Stub" "$$1" || rm "$$1"' _ {} ';'
endef

.PHONY: protos
protos: setup ## Regenerate the stubs from protos/
	@rm -rf libs/protos/farthing libs/protos/buf
	@$(call generate_stubs,libs/protos)

.PHONY: stubs-current
stubs-current: setup
	@fresh=$$(mktemp -d); trap 'rm -rf $$fresh' EXIT; $(MAKE) --no-print-directory stubs-into INTO=$$fresh; \
	for tree in farthing buf; do diff -r -x __pycache__ $$fresh/$$tree libs/protos/$$tree || { echo 'Stubs are stale: run `make protos`'; exit 1; }; done

.PHONY: stubs-into
stubs-into:
	@$(call generate_stubs,$(INTO))

.PHONY: simulate
simulate: setup ## Replay seeded faults over the ledger: SEED=1 WORLDS=10000
	@$(BIN)/python -m tests.simulation --seed $(or $(SEED),1) --worlds $(or $(WORLDS),10000)

.PHONY: lock
lock: setup ## Resolve the dependencies anew into requirements/*.txt
	@uv=$$(command -v uv || echo $(BIN)/uv); \
	lock() { $$uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links \
	  --no-annotate --no-header --no-emit-package farthing-core --no-emit-package farthing-protos --no-emit-package farthing-runtime \
	  --override requirements/overrides.txt "$$@"; }; \
	lock $(PACKAGES) requirements/dev.in -o requirements/dev.txt; \
	lock $(PACKAGES) -c requirements/dev.txt -o requirements/runtime.txt
