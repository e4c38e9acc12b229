#!/usr/bin/env bash
# MetaWorld's MT10: demonstrations by its own scripts, a small π0.5 on them, and its success from positions never seen.
#
# Hardware: 2 CPU cores. MetaWorld wants a virtual environment of its own:
#   python3.11 -m venv .venv-metaworld && .venv-metaworld/bin/pip install -e '.[torch,metaworld]'
#
#   runs/metaworld.sh            everything
#   runs/metaworld.sh collect | train | eval
set -euo pipefail
cd "$(dirname "$0")/.."
export OMP_WAIT_POLICY=passive
pilot=${PILOT:-.venv-metaworld/bin/pilot}

# Each of the 50 positions of the train split once for each task.
collect() {
    $pilot collect data/metaworld/mt10 --suite metaworld-mt10 --scenes 500 --episodes 1 --image-size 128 --picture-every 4
}
train() { $pilot train metaworld_mt10 --out outputs/metaworld/mt10; }
evaluate() { # numbers to expect: docs/measurements.md
    $pilot eval outputs/metaworld/mt10/policy --suite metaworld-mt10 --high-level none --replan-steps 10 --seed 0 --episodes 200 --out outputs/metaworld/mt10/eval
    $pilot eval outputs/metaworld/mt10/policy --suite metaworld-mt10 --high-level none --replan-steps 10 --seed 0 --episodes 50 --control blank_images shuffled_prompts --out outputs/metaworld/mt10/eval
}

case "${1:-all}" in
    collect | train) "$1" ;;
    eval) evaluate ;;
    all) collect && train && evaluate ;;
    *) echo "unknown step '$1'; known: collect train eval" >&2 && exit 2 ;;
esac
