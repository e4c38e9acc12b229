#!/usr/bin/env bash
# Ten recipes on the same demonstrations, each with 160 000 rows, then in the same 200 homes: `configs/compared.py`.
#
# Hardware: 2 CPU cores, up to 40 minutes for each training. Every step goes on where it was when it is started again.
# Numbers to expect: none yet, nobody has run it; the page ends up in outputs/compared/report.html.
#
#   runs/baselines.sh                      everything
#   runs/baselines.sh collect | vision | train [NAME…] | eval [NAME…] | report
#   SMOKE=1 runs/baselines.sh train        each recipe for 2 steps, to see that it runs
set -euo pipefail
cd "$(dirname "$0")/.."
export OMP_WAIT_POLICY=passive
run=${PILOT:-.venv/bin/pilot}
out=${OUT:-outputs/compared}
names=(pi05 pi0_fast_flow pi0 pi0_scratch pi0_fast pi0_small act diffusion_policy octo bins)
smoke=()
[ -z "${SMOKE:-}" ] || smoke=(--set steps=2 --set batch_size=4 --set optim.warmup_steps=1)

collect() { runs/nano.sh collect; }
vision() { runs/nano.sh vision; }
train() {
    for name in "${@:-${names[@]}}"; do
        $run train "compared_$name" --out "$out/$name" "${smoke[@]}"
    done
}
eval_all() {
    for name in "${@:-${names[@]}}"; do
        $run eval "$out/$name/policy" --suite homes-l1 homes-l2 --control none blank_images shuffled_prompts \
            --episodes 200 --seed 0 --out "$out/$name/eval"
    done
}
report() {
    local folders=()
    for name in "${names[@]}"; do
        [ ! -d "$out/$name/eval" ] || folders+=("$name=$out/$name/eval")
    done
    $run report "${folders[@]}" --question "Which recipe learns most from the same demonstrations?" --out "$out/report.html"
}

case "${1:-all}" in
    collect | vision | report) "$1" ;;
    train) shift && train "$@" ;;
    eval) shift && eval_all "$@" ;;
    all) collect && vision && train && eval_all && report ;;
    *) echo "unknown step '$1'; known: collect vision train eval report" >&2 && exit 2 ;;
esac
