#!/usr/bin/env bash
# Snakemake runs this in the new conda environment: envs/build.py installs the locked packages and verifies their hashes.
# Snakemake rebuilds the environment when this file changes, so it contains the SHA-256 of the concatenated locks:
# 14d21a67ffbfb2b5add01df723e44da48cd725b0544e91a691096a789b561bb8.
set -euo pipefail
MOEBENCH_ENVS="$CONDA_PREFIX/environments" python "$MOEBENCH_PROJECT/envs/build.py" workflow vllm-cuda quantize-cuda vlmeval
