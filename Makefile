# The commands of the README. Nothing is needed but Python 3.11 and make.
PYTHON ?= python3
ENVS := $(or $(MOEBENCH_ENVS),.envs)
BIN := $(ENVS)/workflow/bin
CORES ?= 2
PYTEST = $(ENVS)/dev/bin/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder
# Environments may be shared by checkouts: the package is this one's.
export PYTHONPATH := $(CURDIR)/workflow$(if $(PYTHONPATH),:$(PYTHONPATH))

.PHONY: report envs test test-all check lint bench clean

report: envs   ## measure the study of config/config.yaml and build its report
	@$(BIN)/python -m moebench plan --summary
	@$(BIN)/snakemake --profile profiles/local --cores $(CORES) \
	  || { ls .snakemake/locks/* >/dev/null 2>&1 || $(BIN)/python -m moebench report --partial; exit 1; }
	@$(BIN)/python -m moebench plan --summary

envs:          ## build the locked environments (a second call does nothing)
	@$(PYTHON) envs/build.py workflow vllm-cpu quantize-cpu vlmeval

test:          ## everything CI runs
test-all:      ## and the long tests, for nightly runs
test: SELECT = not nightly
test test-all:
	@tests/system-packages
	@$(PYTHON) envs/build.py dev workflow vllm-cpu quantize-cpu vlmeval
	@$(PYTEST) --durations 25 -m "$(SELECT)"

check: lint    ## lint and unit tests: what a developer runs all day
	@$(PYTEST) tests/unit -q

lint:          ## style, types, generated files
	@$(PYTHON) envs/build.py dev
	@$(ENVS)/dev/bin/ruff check .
	@$(ENVS)/dev/bin/ruff format --check --quiet .
	@$(ENVS)/dev/bin/mypy
	@$(ENVS)/dev/bin/snakefmt --check Snakefile workflow/rules
	@$(ENVS)/dev/bin/python -m moebench schema --check

bench: envs    ## performance claims, as ratios in one run
	@$(BIN)/python tests/bench.py

clean:         ## remove generated files, but neither results nor environments
	rm -rf .snakemake/log .pytest_cache .mypy_cache .ruff_cache
