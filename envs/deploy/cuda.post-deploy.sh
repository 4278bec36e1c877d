#!/usr/bin/env bash
# Snakemake runs this in the new conda environment: envs/build.py installs the locked packages and verifies their hashes.
# Snakemake rebuilds the environment when this file changes, so it contains the SHA-256 of the concatenated locks:
# cf2acfba0981593fbc3bda84e64644dfbecca241390d48f0850d45f8441e3d37.
set -euo pipefail
MOEBENCH_ENVS="$CONDA_PREFIX/environments" python "$MOEBENCH_PROJECT/envs/build.py" workflow vllm-cuda quantize-cuda vlmeval
