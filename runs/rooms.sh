#!/usr/bin/env bash
# checkpoints/homes: one policy for three bodies in homes with rooms, π0.5's stages on every source, from nothing.
#
# Hardware: 2 CPU cores. Every stage goes on where it was when it is started again, also after Ctrl-C.
#
#   runs/rooms.sh            everything
#   runs/rooms.sh collect | vision | base | words | actions | together | collect_drills | drills | ship | eval
set -euo pipefail
cd "$(dirname "$0")/.."
export OMP_WAIT_POLICY=passive
pilot=${PILOT:-$([ -x .venv/bin/pilot ] && echo .venv/bin/pilot || echo pilot)} # of this folder, else of the environment

# States and actions are recorded at the robot's rate, pictures at every so many frames. All but `me_arm_pushed` of the
# shipped policy were collected with fewer mishaps than experts make now (`docs/log.md`, 2026-11-29).
collect() {
    $pilot collect data/rooms/wd --suite rooms-steps --web 16000 --homes 800 --first-home 20000 --seed 12 --image-size 128
    $pilot collect data/rooms/wd_more --suite rooms-steps --web 24000 --homes 1200 --first-home 21000 --seed 13 --image-size 128
    $pilot collect data/rooms/wd_arm --suite rooms-move-l1@arm_ee --web 72000 --homes 2200 --first-home 70000 --seed 14 --image-size 128
    $pilot collect data/rooms/me_arm_move --suite rooms-move-l1@arm_ee --homes 520 --episodes 1 --first-home 6000 --seed 6000 --picture-every 5 --image-size 128
    $pilot collect data/rooms/me_arm_pushed --suite rooms-move-l1@arm_ee --homes 421 --episodes 1 --first-home 6000 --seed 6001 --picture-every 5 --image-size 128
    $pilot collect data/rooms/mm_move --suite rooms-move-l1@mobile_ee --homes 300 --episodes 1 --first-home 1000 --seed 1000 --picture-every 8 --image-size 128
    $pilot collect data/rooms/mm_skill --suite rooms-skill@mobile_ee --homes 100 --episodes 1 --first-home 0 --seed 0 --picture-every 8 --image-size 128
    $pilot collect data/rooms/ce_bimanual_bowls --suite lab-stack-bowls-l1 --tables 60 --episodes 1 --first-table 8000 --seed 8000 --picture-every 10 --image-size 128
}
vision() { $pilot train rooms_vision --out outputs/rooms/vision; }
base() { $pilot train rooms_base --out outputs/rooms/base; }
words() { $pilot train rooms_words --out outputs/rooms/words; }
actions() { $pilot train rooms_actions --out outputs/rooms/actions; }
together() { $pilot train rooms_together --out outputs/rooms/together; }
collect_drills() { # experts that mend a miss where they are; and short: begun beside the thing, or with it in hand and off the way
    $pilot collect data/rooms/me_arm_mended --suite rooms-move-l1@arm_ee --homes 500 --episodes 1 --first-home 40000 --seed 40000 --picture-every 5 --image-size 128
    $pilot collect data/rooms/mm_mended --suite rooms-move-l1@mobile_ee --homes 300 --episodes 1 --first-home 42000 --seed 42000 --picture-every 8 --image-size 128
    $pilot collect data/rooms/me_arm_grasp --suite rooms-grasp@arm_ee --homes 500 --episodes 2 --first-home 30000 --seed 30000 --picture-every 4 --image-size 128
    $pilot collect data/rooms/mm_grasp --suite rooms-grasp@mobile_ee --homes 320 --episodes 2 --first-home 32000 --seed 32000 --picture-every 4 --image-size 128
    $pilot collect data/rooms/me_arm_place --suite rooms-place@arm_ee --homes 220 --episodes 2 --first-home 46000 --seed 46000 --picture-every 5 --image-size 128
    $pilot collect data/rooms/mm_place --suite rooms-place@mobile_ee --homes 220 --episodes 2 --first-home 44000 --seed 44000 --picture-every 6 --image-size 128
}
drills() { $pilot train rooms_drills --out outputs/rooms/drills; }
ship() {
    mkdir -p checkpoints && rm -rf checkpoints/homes.new # of a run that stopped half-way
    cp -r outputs/rooms/drills/policy checkpoints/homes.new
    for stage in vision base words actions together drills; do # its log: config (with seed) and every logged step
        mkdir -p "checkpoints/homes.new/training/$stage"
        cp outputs/rooms/$stage/config.json outputs/rooms/$stage/metrics.jsonl "checkpoints/homes.new/training/$stage/"
    done
    [ ! -e checkpoints/homes ] || mv checkpoints/homes "checkpoints/homes.before-$(date +%Y%m%d-%H%M%S)"
    mv checkpoints/homes.new checkpoints/homes
}
eval_all() {
    $pilot eval checkpoints/homes --suite rooms-skill@mobile_ee rooms-move-l1@mobile_ee rooms-steps@mobile_ee rooms-whole@mobile_ee --robot mobile_ee --control none blank_images shuffled_prompts --replan-steps 10 --episodes 100 --seed 0 --out outputs/rooms/eval/mobile
    $pilot eval checkpoints/homes --suite rooms-move-l1@arm_ee rooms-steps@arm_ee --robot arm_ee --control none blank_images shuffled_prompts --replan-steps 10 --episodes 100 --seed 0 --out outputs/rooms/eval/arm
    $pilot eval checkpoints/homes --suite lab-stack-bowls-l1@bimanual --robot bimanual --control none blank_images --replan-steps 25 --episodes 100 --seed 0 --out outputs/rooms/eval/lab
}

case "${1:-all}" in
    collect | vision | base | words | actions | together | collect_drills | drills | ship) "$1" ;;
    eval) eval_all ;;
    all) collect && vision && base && words && actions && together && collect_drills && drills && ship && eval_all ;;
    *) echo "unknown stage '$1'; known: collect vision base words actions together collect_drills drills ship eval" >&2 && exit 2 ;;
esac
