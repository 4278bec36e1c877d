#!/usr/bin/env bash
# Run by Snakemake in the new conda environment: the locked packages, checked by their hashes, as envs/build.py has them.
# Snakemake makes the environment anew when this file changes, so it names the locks: sha256 of them, one after the other,
# is 14d21a67ffbfb2b5add01df723e44da48cd725b0544e91a691096a789b561bb8.
set -euo pipefail
MOEBENCH_ENVS="$CONDA_PREFIX/environments" python "$MOEBENCH_PROJECT/envs/build.py" workflow vllm-cuda quantize-cuda vlmeval
