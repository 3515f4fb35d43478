# biodedup: everything a newcomer, a developer and a CI job need. `make help` lists it.
# Assumed: Python 3.11 or newer with venv, make, and a package index. Everything else goes into .venv.

# The first Python of these that is new enough; PYTHON=... chooses another.
PYTHON ?= $(shell for candidate in python3 python3.13 python3.12 python3.11; do \
	"$$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo "$$candidate" && break; done)
BIN := .venv/bin
RUNTIME := .venv/.installed-runtime
DEV := .venv/.installed-dev
# The scripts in .venv/bin name the folder they were installed in: after it was renamed or copied, install again.
MOVED := $(shell test ! -e $(BIN)/biodedup || head -n 2 $(BIN)/biodedup | grep -qF "$(CURDIR)/$(BIN)/python" || echo moved)
DATASET ?= ../shared/data/lfw-dev
PYTEST_ARGS ?=
SPEED := $(BIN)/python -m benchmarks.speed
FIGURES := var/benchmarks/figures
GROWTH_SIZES ?= 1000000,2000000,5000000,10000000
LOCK := uv pip compile pyproject.toml --universal --python-version 3.11 --generate-hashes --no-annotate --no-header -q --extra build

# ONNX Runtime reports its use to Microsoft unless it is told not to before it starts.
export ORT_DISABLE_TELEMETRY := 1

.DEFAULT_GOAL := help
.PHONY: help demo serve test bench bench-search soak models test-models lock audit sbom release verify-release clean moved

help: ## List these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' Makefile

demo: models ## Start the service, enrol real photographs, show what it found, keep serving (FACES=DIR: your own)
	@$(BIN)/python -m benchmarks.demo $(if $(FACES),--faces "$(FACES)")

serve: models ## Run the service on http://127.0.0.1:8000 with its data in ./var
	@$(BIN)/python -m service serve

test: test-models ## Run every gate: format, lint, types, import contracts, tests
	$(BIN)/python -m ruff format --check .
	$(BIN)/python -m ruff check .
	$(BIN)/python -m mypy
	$(BIN)/python -c 'import sys; from importlinter.cli import lint_imports_command; sys.exit(lint_imports_command())'
	$(BIN)/python -m pytest -m "not soak" -n logical --maxprocesses 4 --dist loadscope $(PYTEST_ARGS)

soak: test-models ## Run what takes long: kills, races and broken images at full counts
	$(BIN)/python -m pytest -m soak $(PYTEST_ARGS)

bench: test-models ## Measure error rates (DATASET=DIR), the pipeline and the search, and plot: takes hours and 30 GB of disk
	@if [ -d "$(DATASET)" ]; then $(BIN)/python -m benchmarks.error_rates --dataset "$(DATASET)"; \
	else echo "No photographs in $(DATASET), so no error rates; DATASET=DIR names a folder of them."; fi
	$(BIN)/python -m benchmarks.speed pipeline
	@$(MAKE) --no-print-directory bench-search

bench-search: $(DEV) # the search alone: what docs/benchmarks.md shows; GROWTH_SIZES=... for fewer or smaller galleries
	mkdir -p $(FIGURES)
	for dimension in 128 512; do \
	$(SPEED) search --gallery-size 100000 --dimension $$dimension --methods all --json $(FIGURES)/search-100k-$$dimension.json && \
	$(SPEED) search --gallery-size 1000000 --dimension $$dimension --methods all --json $(FIGURES)/search-1m-$$dimension.json && \
	$(SPEED) growth --dimension $$dimension --sizes $(GROWTH_SIZES) --json $(FIGURES)/growth-$$dimension.json && \
	$(SPEED) enrolling --gallery-size 1000000 --dimension $$dimension --json $(FIGURES)/enrolling-$$dimension.json || exit 1; done
	$(SPEED) plot $(FIGURES)/search-100k-128.json $(FIGURES)/search-100k-512.json --out docs/images/search-100k.svg
	$(SPEED) plot $(FIGURES)/search-1m-128.json $(FIGURES)/search-1m-512.json --out docs/images/search-1m.svg
	$(SPEED) plot $(FIGURES)/growth-128.json $(FIGURES)/growth-512.json --out docs/images/growth.svg

models: $(RUNTIME) ## Fetch and check the default model pack
	@$(BIN)/python -m service models fetch opencv-zoo

test-models: $(DEV)
	@$(BIN)/python -m service models fetch opencv-zoo
	@echo "The tests compare two model packs. buffalo_s is for non-commercial research only: here it is fetched for the"
	@echo "tests, which is such a use. The service never loads it unless you accept its licence yourself."
	@BIODEDUP_ACCEPTED_LICENCES=buffalo_s $(BIN)/python -m service models fetch buffalo_s

lock: ## Write the lock files anew (needs uv); LOCK_ARGS=--upgrade takes newer versions
	$(LOCK) $(LOCK_ARGS) -o requirements.lock
	$(LOCK) $(LOCK_ARGS) --extra dev -c requirements.lock -o requirements-dev.lock

audit: $(DEV) ## Ask the vulnerability data of PyPI about every locked package (needs a network; not a gate)
	@$(BIN)/python -m pip_audit --strict --require-hashes --disable-pip --progress-spinner off -r requirements.lock || \
	{ echo "Known weaknesses are listed above. Where a package could not be audited, PyPI's own data was not reached: a mirror has none."; exit 1; }

sbom: $(DEV) ## Write dist/sbom.cdx.json: every locked package and model file with its digest (CycloneDX)
	@$(BIN)/python deploy/sbom.py dist/sbom.cdx.json

release: $(DEV) ## Build and sign wheel, sdist and SBOM of the last commit into dist (SIGNING_KEY=FILE, an OpenSSH key)
	@test -n "$(SIGNING_KEY)" || { echo "SIGNING_KEY=FILE names the private OpenSSH key: ssh-keygen -t ed25519 -f FILE makes one."; exit 1; }
	@$(BIN)/python deploy/release.py make --key "$(SIGNING_KEY)"

verify-release: $(DEV) ## Check a release against its signature (SIGNERS=FILE, RELEASE=DIR; dist if not given)
	@test -n "$(SIGNERS)" || { echo "SIGNERS=FILE names the allowed signers, a line each: release ssh-ed25519 KEY"; exit 1; }
	@$(BIN)/python deploy/release.py verify --signers "$(SIGNERS)" "$(or $(RELEASE),dist)"

clean: ## Remove .venv and caches; ./var (your data) and the models stay
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis biodedup.egg-info

$(RUNTIME): requirements.lock deploy/install.py $(MOVED)
	@$(call need_python)
	@"$(PYTHON)" deploy/install.py requirements.lock
	@touch $@

$(DEV): requirements-dev.lock deploy/install.py $(MOVED)
	@$(call need_python)
	@"$(PYTHON)" deploy/install.py requirements-dev.lock
	@touch $@ $(RUNTIME)

moved: # never up to date: what depends on it is installed again

need_python = if [ -z "$(PYTHON)" ]; then echo "Python 3.11 or newer is needed (Debian, Ubuntu: apt install python3-venv)."; exit 1; fi
