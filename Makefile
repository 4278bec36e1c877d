# The commands of the README. Nothing is needed but Python 3.11 and make.
PYTHON ?= python3
ENVS := $(or $(MOEBENCH_ENVS),.envs)
BIN := $(ENVS)/workflow/bin
CORES ?= 2

.PHONY: report envs test lint bench clean

report: envs   ## measure the study of config/config.yaml and build its report
	@trap : INT; $(BIN)/snakemake --profile profiles/local --cores $(CORES) || { code=$$?; [ $$code = 130 ] \
	  || ls .snakemake/locks/* >/dev/null 2>&1 || $(BIN)/python -m moebench report --partial; exit $$code; }

envs:          ## build the locked environments (a second call does nothing)
	@$(PYTHON) envs/build.py workflow vllm-cpu quantize-cpu vlmeval

test:          ## everything CI runs
	@$(PYTHON) envs/build.py dev workflow vllm-cpu quantize-cpu vlmeval
	@$(ENVS)/dev/bin/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder --durations 25

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
