#!/usr/bin/env bash
# All that a GPU can say about pilot, in at most seven minutes: every fast path against the plain model, then acting and
# training timed. Numbers land in $OUT (outputs/gpu if unset) as JSON, log and rows for docs/measurements.md.
#
#     bench/gpu.sh [commit]        the commit, where this is no git checkout
set -u
cd "$(dirname "$0")/.."
out=${OUT:-outputs/gpu}
mkdir -p "$out"
export PYTHONPATH=$PWD/src:$PWD/bench
python=${PYTHON:-python}
acting=${ACTING_SECONDS:-215} training=${TRAINING_SECONDS:-100}  # after these no further part begins
timeout $((acting + 40)) "$python" bench/gpu.py --out "$out" --seconds "$acting" ${1:+--commit "$1"} 2>&1 | tee "$out/gpu.log"
timeout $((training + 55)) "$python" bench/gpu_training.py --seconds "$training" --json "$out/gpu_training.json" \
    ${TRAINING_ONLY:+--only $TRAINING_ONLY} 2>&1 | tee "$out/gpu_training.log"
