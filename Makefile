.DEFAULT_GOAL := help
.PHONY: help serve test check fmt lock

help:  ## Show what can be made
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

serve:  ## Run Ladder with embedded Postgres and Valkey
	scripts/server

test:  ## Run the whole test suite against real servers
	scripts/test

check:  ## Everything CI runs: lint, types, layers, tests
	bash .ci/run

fmt:  ## Format and fix what can be fixed
	.venv/bin/ruff format . && .venv/bin/ruff check --fix .

lock:  ## Write the hashed lock files anew (needs uv)
	uv pip compile pyproject.toml $(LOCK) -o requirements.lock
	uv pip compile pyproject.toml --group dev -c requirements.lock $(LOCK) -o requirements-dev.lock
	sed -n 's/^embedded = \[\(.*\)\]$$/\1/p' pyproject.toml | tr -d '" ' | sed 's/,\([a-z]\)/\n\1/g' \
	  | uv pip compile - --no-deps $(LOCK) -o requirements-embedded.lock

LOCK = --quiet --upgrade --generate-hashes --universal --no-emit-index-url --no-header --no-annotate
