#!/usr/bin/env bash
# Run by Snakemake in the new conda environment: the locked packages, checked by their hashes, as envs/build.py has them.
# Snakemake makes the environment anew when this file changes, so it names the locks: sha256 of them, one after the other,
# is 5cd2fcd11b2832fa6b1498d63a700ccac32a5e0bc8e2549f13b422b45d7e6f75.
set -euo pipefail
MOEBENCH_ENVS="$CONDA_PREFIX/environments" python "$MOEBENCH_PROJECT/envs/build.py" workflow vllm-cuda quantize-cuda vlmeval
