#!/usr/bin/env bash
# A run on several machines of a Slurm cluster, one task per GPU.
#
#   sbatch --nodes 2 runs/slurm.sh pi05_stage1 --set parallel.strategy=hsdp --set compute.checkpointing=blocks
#
# `hsdp` keeps one copy of the model per machine; `fsdp` spreads one copy over all of them. Five minutes before its time
# is up every task is told to stop: they save after the step they are in, and the job goes on where it was. No launcher
# stands between Slurm and the tasks, so that none cuts the saving short.
#
# Not run here: it takes a cluster.
#SBATCH --job-name=pilot
#SBATCH --gpus-per-node=8
#SBATCH --ntasks-per-node=8
#SBATCH --cpus-per-task=12
#SBATCH --time=24:00:00
#SBATCH --signal=TERM@300
#SBATCH --requeue
#SBATCH --open-mode=append
set -uo pipefail
cd "${SLURM_SUBMIT_DIR:-$(dirname "$0")/..}" || exit 1
export MASTER_ADDR MASTER_PORT=29500 PILOT=${PILOT:-$([ -x .venv/bin/pilot ] && echo .venv/bin/pilot || echo pilot)}
MASTER_ADDR=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)

srun --kill-on-bad-exit=1 bash -c '
    export RANK=$SLURM_PROCID WORLD_SIZE=$SLURM_NTASKS
    export LOCAL_RANK=$SLURM_LOCALID LOCAL_WORLD_SIZE=$SLURM_NTASKS_PER_NODE
    exec "$PILOT" train "$@"
' train "$@"
status=$?
if [ $status -eq 130 ]; then # stopped in time: the same command goes on
    scontrol requeue "$SLURM_JOB_ID"
fi
exit $status
