#!/usr/bin/env bash
# All that a GPU can say about pilot, in at most seven minutes: every fast path against the plain model, then acting and
# training timed. Numbers land in $OUT (outputs/gpu if unset) as JSON, log and rows for docs/results.md.
#
#     bench/gpu.sh [commit]        the commit, where this is no git checkout
set -u
cd "$(dirname "$0")/.."
out=${OUT:-outputs/gpu}
mkdir -p "$out"
export PYTHONPATH=$PWD/src:$PWD/bench
python=${PYTHON:-python}
timeout 255 "$python" bench/gpu.py --out "$out" --seconds "${ACTING_SECONDS:-215}" ${1:+--commit "$1"} 2>&1 | tee "$out/gpu.log"
timeout 155 "$python" bench/gpu_training.py --seconds "${TRAINING_SECONDS:-100}" --json "$out/gpu_training.json" 2>&1 |
    tee "$out/gpu_training.log"
