#!/usr/bin/env bash
# Run by Snakemake in the new conda environment: the locked packages, checked by their hashes, as envs/build.py has them.
# Snakemake makes the environment anew when this file changes, so it names the locks: sha256 of them, one after the other,
# is 92c80c1977fb44679ead8b48356808df56dc58bcdf1e7a030ba84cf4cf457876.
set -euo pipefail
MOEBENCH_ENVS="$CONDA_PREFIX/environments" python "$MOEBENCH_PROJECT/envs/build.py" workflow vllm-cpu quantize-cpu vlmeval
