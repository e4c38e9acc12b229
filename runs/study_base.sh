#!/usr/bin/env bash
# checkpoints/study_base: what the conditions of `pilot study` begin from, a tower and a backbone that answer questions.
#
# Hardware: 2 CPU cores, about half an hour. Every stage goes on where it was when it is started again.
#
#   runs/study_base.sh            everything
#   runs/study_base.sh collect | vision | base
set -euo pipefail
cd "$(dirname "$0")/.."
export OMP_WAIT_POLICY=passive
pilot=${PILOT:-$([ -x .venv/bin/pilot ] && echo .venv/bin/pilot || echo pilot)} # of this folder, else of the environment

collect() {
    $pilot collect data/study/lab --suite homes-l1 --homes 640 --episodes 1 --first-home 10000 --seed 0
    $pilot collect data/study/web --suite homes-l2-multi --web 48000 --homes 3000 --first-home 50000 --seed 5
}
vision() { $pilot train study_vision --out outputs/study/vision; }
base() { $pilot train study_base --out outputs/study/base; }

case "${1:-all}" in
    collect | vision | base) "$1" ;;
    all) collect && vision && base ;;
    *) echo "unknown stage '$1'; known: collect vision base" >&2 && exit 2 ;;
esac
