#!/usr/bin/env bash
# Run by Snakemake in the new conda environment: the locked packages, checked by their hashes, as envs/build.py has them.
# Snakemake makes the environment anew when this file changes, so it names the locks: sha256 of them, one after the other,
# is 5f46a43c4f80991fe757ea5d6dd05f09a6e9209c84cbff9d2ca8bd1be74687a6.
set -euo pipefail
MOEBENCH_ENVS="$CONDA_PREFIX/environments" python "$MOEBENCH_PROJECT/envs/build.py" workflow vllm-cpu quantize-cpu vlmeval
