#!/usr/bin/env bash
# Snakemake runs this in the new conda environment: envs/build.py installs the locked packages and verifies their hashes.
# Snakemake rebuilds the environment when this file changes, so it contains the SHA-256 of the concatenated locks:
# 5cd2fcd11b2832fa6b1498d63a700ccac32a5e0bc8e2549f13b422b45d7e6f75.
set -euo pipefail
MOEBENCH_ENVS="$CONDA_PREFIX/environments" python "$MOEBENCH_PROJECT/envs/build.py" workflow vllm-cuda quantize-cuda vlmeval
