#!/usr/bin/env bash
# Run by Snakemake in the new conda environment: the locked packages, checked by their hashes, as envs/build.py has them.
# Snakemake makes the environment anew when this file changes, so it names the locks: sha256 of them, one after the other,
# is a953ff5ce7d7cc7b885d348913bcdb30d742c090327ab19863bcae9d2b09ef94.
set -euo pipefail
MOEBENCH_ENVS="$CONDA_PREFIX/environments" python "$MOEBENCH_PROJECT/envs/build.py" workflow vllm-cuda quantize-cuda vlmeval
