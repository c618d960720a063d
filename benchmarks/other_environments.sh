#!/usr/bin/env bash
# TRL and Tunix in environments of their own, for launch.benchmark to compare with: benchmarks/other_environments.sh [DIR]
# torch first, at the version that the tests pin: whatever trl would choose may pull gigabytes for CUDA.
set -euo pipefail
cd "$(dirname "$0")/.."
directory=${1:-.environments}
python3 -m venv "$directory/trl"
"$directory/trl/bin/pip" install --quiet torch==2.13.0
"$directory/trl/bin/pip" install --quiet trl==1.16.0 'transformers>=5.23,<5.24' pillow
python3 -m venv "$directory/tunix"
"$directory/tunix/bin/pip" install --quiet google-tunix==0.1.7 'jax>=0.10.2,<0.11'
