#!/usr/bin/env bash
# Snakemake runs this in the new conda environment: envs/build.py installs the locked packages and verifies their hashes.
# Snakemake rebuilds the environment when this file changes, so it contains the SHA-256 of the concatenated locks:
# 92c80c1977fb44679ead8b48356808df56dc58bcdf1e7a030ba84cf4cf457876.
set -euo pipefail
MOEBENCH_ENVS="$CONDA_PREFIX/environments" python "$MOEBENCH_PROJECT/envs/build.py" workflow vllm-cpu quantize-cpu vlmeval
