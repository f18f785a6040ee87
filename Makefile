# All set-up is done here, in .venv (and .venv-proto for code generation); a second call adds a few milliseconds.
# Needs Python 3.11+ with venv, git and make. PYTHON=... names another interpreter.
.DEFAULT_GOAL := help
# Most tests wait for processes to start, so one more than there are cores keeps them busy.
JOBS ?= $(shell expr $$(nproc) + 1)
.PHONY: help run demo images test proto lint check bench clean

help: ## list the targets
	@sed -nE 's/^([a-z]+):.*## (.*)/make \1|\2/p' Makefile | while IFS='|' read -r name text; do printf '%-12s %s\n' "$$name" "$$text"; done

run: ## start Treadle with all it needs; the first start also plays one session
	@tools/setup run
	@exec .venv/bin/treadle up

demo: ## start Treadle and play the demo session again
	@tools/setup run
	@exec .venv/bin/treadle up --demo

images: ## build the images of server, gateway and workers; BASE=python:3.13-slim-bookworm or the like, PACKAGES="nodejs npm" for workers
	@tools/images $(if $(BASE),--base $(BASE)) $(if $(PACKAGES),--packages "$(PACKAGES)")

test: ## run all tests, one process more than there are cores; ARGS="-k word" is handed to pytest
	@tools/setup dev node
	@# What was compiled once is not compiled again by each of the thousands of processes that tests start.
	@env -u PYTHONDONTWRITEBYTECODE .venv/bin/python -m pytest -n $(JOBS) --dist worksteal $(ARGS)

proto: ## generate generated/ and the gateway's descriptors from protos
	@tools/setup proto node
	@tools/generate .

lint: ## style, imports and protos: seconds
	@tools/setup dev proto
	@tools/check lint

check: ## lint, types, drift of generated code, breaking changes of protos
	@tools/setup dev proto node
	@tools/check all

bench: ## measure; figures go to bench/results
	@tools/setup dev
	@exec .venv/bin/python -m bench $(ARGS)

clean: ## remove what set-up and tools made; data of `make run` stays
	@rm -rf .venv .venv-proto .mypy_cache tools/node/node_modules generated/ts/node_modules .ruff_cache .pytest_cache .import_linter_cache build *.egg-info generated/python/src/*.egg-info clients/python/src/*.egg-info
	@find server worker tests generated clients -name __pycache__ -type d -prune -exec rm -rf {} +
