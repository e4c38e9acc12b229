#!/usr/bin/env bash
# checkpoints/homes: one policy for three bodies in homes with rooms, π0.5's stages on every source, from nothing.
#
# Hardware: 2 CPU cores. Every stage goes on where it was when it is started again, also after Ctrl-C.
#
#   runs/rooms.sh            everything
#   runs/rooms.sh collect | vision | stage1 | stage2 | expert | ship | eval
set -euo pipefail
cd "$(dirname "$0")/.."
export OMP_WAIT_POLICY=passive
pilot=${PILOT:-.venv/bin/pilot}
data=${DATA:-data/rooms}
share=${SHARE:-100} # per cent of the homes: a smaller number tries the script out

demonstrations() { # name, suite, homes, episodes in each, first home, frames between pictures, more options
    local name=$1 suite=$2 homes=$(($3 * share / 100)) episodes=$4 first=$5 every=$6
    shift 6
    $pilot collect "$data/$name" --suite "$suite" --scenes "$((homes > 0 ? homes : 1))" --episodes "$episodes" \
        --first-scene "$first" --seed "$first" --picture-every "$every" --image-size 128 "$@"
}
collect() {
    demonstrations mm_skill rooms-skill@mobile 150 2 0 4
    demonstrations mm_move rooms-move-l1@mobile 500 2 1000 4
    demonstrations mm_steps rooms-steps@mobile 150 2 2000 5
    demonstrations mm_whole rooms-whole@mobile 60 1 3000 10
    demonstrations me_arm_move rooms-move-l1@arm 500 2 4000 4
    demonstrations me_arm_steps rooms-steps@arm 120 2 5000 5
    demonstrations me_bimanual_move rooms-move-l1@bimanual 250 2 6000 10
    demonstrations ce_arm_bowls lab-stack-bowls@arm 150 2 7000 4 --level 1
    demonstrations ce_bimanual_bowls lab-stack-bowls@bimanual 200 2 8000 10 --level 1
    demonstrations ce_bimanual_eggs lab-eggs-in-carton@bimanual 100 1 9000 10 --level 1
    demonstrations ce_bimanual_bus lab-bus-table@bimanual 100 1 10000 10 --level 1
    demonstrations vi rooms-steps@mobile 60 2 11000 5 --verbal
    $pilot collect "$data/wd" --suite rooms-steps --web $((40000 * share / 100)) --scenes $((1500 * share / 100 + 1)) \
        --first-scene 20000 --seed 12 --image-size 128
}
vision() { $pilot train rooms_vision --out outputs/rooms/vision; }
stage1() { $pilot train rooms_stage1 --out outputs/rooms/stage1; }
stage2() { $pilot train rooms_stage2 --out outputs/rooms/stage2; }
expert() { $pilot train rooms_expert --out outputs/rooms/expert; }
ship() {
    mkdir -p checkpoints
    cp -r outputs/rooms/expert/policy checkpoints/homes.new
    for stage in vision stage1 stage2 expert; do # its log: config (with seed) and every logged step
        mkdir -p "checkpoints/homes.new/training/$stage"
        cp outputs/rooms/$stage/config.json outputs/rooms/$stage/metrics.jsonl "checkpoints/homes.new/training/$stage/"
    done
    rm -rf checkpoints/homes && mv checkpoints/homes.new checkpoints/homes
}
eval_all() {
    for robot in mobile arm bimanual; do
        $pilot eval checkpoints/homes --suite rooms-skill rooms-move-l1 rooms-steps rooms-whole --robot $robot \
            --control none blank_images shuffled_prompts --episodes 100 --seed 0 --out outputs/rooms/eval/$robot
    done
    $pilot eval checkpoints/homes --suite lab-stack-bowls --robot bimanual --episodes 100 --out outputs/rooms/eval/lab
}

case "${1:-all}" in
    collect | vision | stage1 | stage2 | expert | ship) "$1" ;;
    eval) eval_all ;;
    all) collect && vision && stage1 && stage2 && expert && ship && eval_all ;;
    *) echo "unknown stage '$1'; known: collect vision stage1 stage2 expert ship eval" >&2 && exit 2 ;;
esac
