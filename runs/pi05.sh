#!/usr/bin/env bash
# π0.5 from PaliGemma at its published size: two stages, or insulated in one.
#
# Not run here: it takes a cluster and data of one's own. No time and no number to expect is known.
# What it takes on which GPUs is predicted by: pilot plan pi05_stage1 --gpus 8xH100
# PaliGemma's weights and text model: checkpoints/paligemma-3b-pt-224. Data: docs/recipe.md.
#
#   GPUS=8 runs/pi05.sh stage1 | stage2 | insulated
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-$([ -x .venv/bin/python ] && echo .venv/bin/python || echo python)} # of this folder, else of the environment

train() {
    "$python" -m torch.distributed.run --standalone --nproc-per-node "${GPUS:-8}" -m pilot train "$1" \
        --set parallel.strategy=fsdp --set compute.checkpointing=blocks "${@:2}"
}

run=${1:-stage1}
case "$run" in
    stage1 | stage2 | insulated) train "pi05_$run" "${@:2}" ;;
    *) echo "unknown stage '$run'; known: stage1 stage2 insulated" >&2 && exit 2 ;;
esac
