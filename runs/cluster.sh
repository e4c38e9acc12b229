#!/usr/bin/env bash
# A run on machines that see each other and have no scheduler: start it on each of them, all with the same command but
# for NODE. Data, code and the output folder are shared, or at least lie under the same paths; checkpoints are written
# by every rank, so the output folder must be shared.
#
#   NODES=2 NODE=0 HEAD=10.0.0.1 runs/cluster.sh pi05_stage1 --set parallel.strategy=hsdp --set compute.checkpointing=blocks
#   NODES=2 NODE=1 HEAD=10.0.0.1 runs/cluster.sh pi05_stage1 --set parallel.strategy=hsdp --set compute.checkpointing=blocks
#
# On one machine: runs/cluster.sh NAME --set parallel.strategy=fsdp. Started again, also on another number of machines or GPUs, it
# goes on from its last checkpoint.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-$([ -x .venv/bin/python ] && echo .venv/bin/python || echo python)} # of this folder, else of the environment

exec "$python" -m torch.distributed.run --nnodes "${NODES:-1}" --node-rank "${NODE:-0}" \
    --nproc-per-node "${GPUS:-gpu}" --master-addr "${HEAD:-127.0.0.1}" --master-port "${PORT:-29500}" \
    -m pilot train "$@"
