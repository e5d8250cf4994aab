# Each target installs its requirements; see scripts/setup. ARGS is passed to its program: make demo ARGS=--yes
ARGS ?=
# More workers than cores, since tests mostly wait for sandboxes.
WORKERS ?= $(shell echo $$(($$(nproc 2>/dev/null || echo 1) + 3)))
# Otherwise each worker, and each process of a test, would compile hundreds of modules again.
unexport PYTHONDONTWRITEBYTECODE
export PYTHON WORKERS

.PHONY: help demo test test-all test-real test-wheel live matrix check words format dist docs picture record examples bench \
	faults setup-demo setup-docs setup-dev clean

help:
	@echo "make demo        an agent repairs a real package, on a local Daytona (ARGS=--yes allows everything, ARGS=--s3 keeps the files on S3)"
	@echo "make test        the tests for a change, on the checkout (minutes)"
	@echo "make test-all    all tests, on the checkout"
	@echo "make test-real   compare the local mount-s3 and S3 with the originals (MOUNT_S3=path, S3_ENDPOINT=url)"
	@echo "make live        check the facts of the real service, in the account of DAYTONA_API_KEY (costs sandbox minutes)"
	@echo "make test-wheel  all tests, on the built wheel"
	@echo "make matrix      some tests of each kind, on the wheel, with each installed Python, newest and lowest versions"
	@echo "make check       ruff, mypy --strict, import-linter, and the contents of the distributions"
	@echo "make words       check docstrings, comments, names and docs for words of scripts/words.toml (ARGS=paths)"
	@echo "make format      format and fix with ruff"
	@echo "make dist        build the source distribution and the wheel into dist/"
	@echo "make docs        build the documentation site into build/site/, strictly (ARGS=--serve shows it on localhost)"
	@echo "make picture     run the demo and draw docs/images/ask.svg, the picture of the README"
	@echo "make record      record the cassettes again, on the local Daytona or the account of DAYTONA_API_KEY"
	@echo "make examples    execute the notebooks, and write their outputs"
	@echo "make faults      every fault at every step, as a table (ARGS=\"--step warm --fault 503\" runs some)"
	@echo "make bench       compare with the SDK, langchain-daytona and Deep Agents (ARGS=--quick)"
	@echo "make clean       remove .venv and caches"

demo: setup-demo
	@.venv/bin/python -m examples.demo $(ARGS)

test: setup-dev
	@.venv/bin/python -m pytest -n $(WORKERS) --dist worksteal -m "not full" $(ARGS)

test-all: setup-dev
	@.venv/bin/python -m pytest -n $(WORKERS) --dist worksteal $(ARGS)

test-wheel: setup-dev
	@scripts/wheel-test -n $(WORKERS) --dist worksteal $(ARGS)

# S3_ENDPOINT needs S3_ACCESS_KEY and S3_SECRET_KEY in the environment; see tests/README.md.
test-real: setup-dev
	@.venv/bin/python -m tests.real --workers $(WORKERS) $(if $(MOUNT_S3),--mount-s3 $(MOUNT_S3)) \
		$(if $(S3_ENDPOINT),--s3-endpoint $(S3_ENDPOINT)) $(ARGS)

live: setup-dev
	@.venv/bin/python -m tests.live $(ARGS)

matrix: setup-dev
	@scripts/matrix

check: setup-dev
	@.venv/bin/ruff check .
	@.venv/bin/ruff format --check .
	@.venv/bin/mypy --strict -p langchain_daytona_ws -p examples -p benchmarks
	@.venv/bin/mypy --strict scripts/check_dist.py scripts/check_words.py scripts/pip_to_uv.py
	@.venv/bin/lint-imports
	@.venv/bin/python scripts/check_words.py
	@scripts/dist

words: setup-dev
	@.venv/bin/python scripts/check_words.py $(ARGS)

format: setup-dev
	@.venv/bin/ruff format .
	@.venv/bin/ruff check --fix .

dist: setup-dev
	@scripts/dist

docs: setup-docs
	@NO_MKDOCS_2_WARNING=1 .venv/bin/python -m mkdocs $(if $(filter --serve,$(ARGS)),serve,build --quiet --clean) --strict

picture: setup-demo
	@.venv/bin/python -m examples.demo.picture

record: setup-dev
	@.venv/bin/python -m tests.cassettes.record $(ARGS)

examples: setup-dev
	@.venv/bin/python -m examples.run $(ARGS)

faults: setup-dev
	@.venv/bin/python -m tests.faults --workers $(WORKERS) $(ARGS)

bench: setup-dev
	@.venv/bin/python -m benchmarks $(ARGS)

setup-demo:
	@scripts/setup demo $(filter --s3-mount,$(ARGS))

setup-docs:
	@scripts/setup docs

setup-dev:
	@scripts/setup dev

clean:
	rm -rf .venv dist build .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis .benchmarks
