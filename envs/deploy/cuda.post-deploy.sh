#!/usr/bin/env bash
# Snakemake runs this in the new conda environment: envs/build.py installs the locked packages and verifies their hashes.
# Snakemake rebuilds the environment when this file changes, so it contains the SHA-256 of the concatenated locks:
# 8c833eac68bc2875cbe7bad93631083ff4a72ee631e2456b52950a4da25876d1.
set -euo pipefail
MOEBENCH_ENVS="$CONDA_PREFIX/environments" python "$MOEBENCH_PROJECT/envs/build.py" workflow vllm-cuda quantize-cuda vlmeval
