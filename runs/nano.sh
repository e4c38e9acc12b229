#!/usr/bin/env bash
# checkpoints/nano: π0.5's stages on generated homes, from nothing.
#
# Hardware: 2 CPU cores (minutes on a GPU). Every stage goes on where it was when it is started again.
# Time and numbers to expect: docs/measurements.md, which names the commit that got them.
#
#   runs/nano.sh            everything that the shipped checkpoint is made of, in outputs/nano
#   runs/nano.sh collect | vision | stage1 | stage2 | expert | eval | own_states
#   runs/nano.sh ship       take the new policy as checkpoints/nano; the one that was there is kept beside it
set -euo pipefail
cd "$(dirname "$0")/.."
export OMP_WAIT_POLICY=passive
pilot=${PILOT:-$([ -x .venv/bin/pilot ] && echo .venv/bin/pilot || echo pilot)} # of this folder, else of the environment

collect() {
    $pilot collect data/nano/l1_single --suite homes-l1 --homes 160 --episodes 4 --seed 0
    $pilot collect data/nano/l2_single --suite homes-l2 --homes 700 --episodes 3 --first-home 10000 --seed 1
    $pilot collect data/nano/l2_multi --suite homes-l2-multi --homes 300 --episodes 3 --first-home 20000 --seed 2
    $pilot collect data/nano/l2_verbal --suite homes-l2-multi --homes 60 --episodes 3 --first-home 30000 --seed 3 --verbal
    $pilot collect data/nano/web --suite homes-l2-multi --web 36000 --homes 1500 --first-home 40000 --seed 4
}
vision() { $pilot train nano_vision --out outputs/nano/vision; }
stage1() { $pilot train nano_stage1 --out outputs/nano/stage1; }
stage2() { $pilot train nano_stage2 --out outputs/nano/stage2; }
expert() { $pilot train nano_expert --out outputs/nano/expert; }
own_states() { # not part of the shipped policy, docs/log.md: `expert` drives, the scripted expert says what is right, learn from that
    $pilot collect data/nano/l2_multi_own --suite homes-l2-multi --homes 60 --episodes 2 --first-home 50000 --seed 5 --policy outputs/nano/expert/policy --driven-steps 100
    $pilot train nano_own_states --out outputs/nano/own_states
}
ship() { # the checkpoint that was there is kept beside it
    mkdir -p checkpoints
    [ ! -e checkpoints/nano ] || mv checkpoints/nano "checkpoints/nano.before-$(date +%Y%m%d-%H%M%S)"
    cp -r outputs/nano/expert/policy checkpoints/nano
    for stage in vision stage1 stage2 expert; do # its log: config (with seed) and every logged step
        mkdir -p "checkpoints/nano/training/$stage"
        cp outputs/nano/$stage/config.json outputs/nano/$stage/metrics.jsonl "checkpoints/nano/training/$stage/"
    done
}
eval_all() {
    policy=${1:-checkpoints/nano}
    $pilot eval $policy --suite homes-l1 homes-l2 homes-l2-multi --control none blank_images shuffled_prompts \
        --episodes 200 --seed 0 --out outputs/nano/eval
}

case "${1:-all}" in
    collect | vision | stage1 | stage2 | expert | own_states | ship) "$1" ;;
    eval) eval_all ;;
    all) collect && vision && stage1 && stage2 && expert && eval_all outputs/nano/expert/policy ;;
    *) echo "unknown stage '$1'; known: collect vision stage1 stage2 expert own_states ship eval" >&2 && exit 2 ;;
esac
