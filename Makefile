# Each target sets up what it needs; see scripts/setup. ARGS is passed on: make demo ARGS=--yes
ARGS ?=
# Tests wait for sandboxes more than they compute: two at a time even on one core.
WORKERS ?= $(shell n=$$(nproc 2>/dev/null || echo 2); [ "$$n" -gt 2 ] && echo "$$n" || echo 2)
export PYTHON

.PHONY: help demo test check format setup-demo setup-dev clean

help:
	@echo "make demo    an agent repairs a real package, on a local Daytona (ARGS=--yes asks nothing, ARGS=--s3 works on S3)"
	@echo "make test    all tests"
	@echo "make check   ruff, mypy --strict, import-linter"
	@echo "make format  let ruff format and fix"
	@echo "make clean   remove .venv and caches"

demo: setup-demo
	@.venv/bin/python -m examples.demo $(ARGS)

test: setup-dev
	@.venv/bin/python -m pytest -n $(WORKERS) $(ARGS)

check: setup-dev
	@.venv/bin/ruff check .
	@.venv/bin/ruff format --check .
	@.venv/bin/mypy --strict -p langchain_daytona_ws -p examples.demo
	@.venv/bin/lint-imports

format: setup-dev
	@.venv/bin/ruff format .
	@.venv/bin/ruff check --fix .

setup-demo:
	@scripts/setup demo $(filter --s3,$(ARGS))

setup-dev:
	@scripts/setup dev

clean:
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis .benchmarks
