#!/usr/bin/env bash
# Compares systems at equal steps over several seeds: trains, decodes and scores each model, then tables of mean and deviation.
# Data and pretrained parts must be there (./run.sh --stop_stage 5). The same command goes on where it was stopped.
set -euo pipefail
cd "$(dirname "$0")"

# Options
systems=        # list of models, see conf/compare/
seeds="1 2 3"
batch_config=conf/train/mini/llama_smop_plain.yaml  # all train on the batches that its token lengths
batch_bins=400  # and this budget make, so that steps are equal
max_epoch=5
jobs=1          # models trained at once
noise_snrs=     # noise at these dB is a test condition beside clean
run_args=       # further options of run.sh, e.g. "--inference_config conf/decode/beam15.yaml"
expdir=exp/compare

help_message="usage: $0 --systems LIST [--OPTION VALUE ...]

Options and defaults:
$(sed -n '/^# Options/,/^expdir/p' "${0##*/}" | sed -n 's/^\([a-z_]*\)=\([^#]*[^# ]\)\{0,1\} *\(#.*\)\{0,1\}$/  --\1 \2  \3/p')"
. utils/parse_options.sh
if [ ! -f "${systems}" ]; then
    echo "$0: --systems names '${systems}', no such file in ${PWD}" >&2
    exit 2
fi

run() { # OPTIONS OF run.sh...
    # shellcheck disable=SC2086
    ./run.sh --expdir "${expdir}" --asr_stats_dir "${expdir}/stats" --skip_packing true --noise_snrs "${noise_snrs}" ${run_args} "$@"
}

models() { # numbered: NAME.NUMBER CONFIG OPTIONS...
    awk '!/^[[:space:]]*(#|$)/ { $1 = $1 "." ++count[$1]; print }' "${systems}"
}

model() { # SEED NAME.NUMBER CONFIG OPTIONS...
    local seed=$1 name=$2 config=$3
    shift 3
    run --stage 11 --stop_stage 13 --asr_config "${config}" --asr_tag "${name}_seed${seed}" --num_threads "$(((threads + jobs - 1) / jobs))" \
        --asr_args "$* --seed ${seed} --batch_bins ${batch_bins} --max_epoch ${max_epoch}"
}

threads=$(OMP_NUM_THREADS= nproc)
status=0
pids=()
waited=0
run --stage 10 --stop_stage 10 --asr_config "${batch_config}"
for seed in ${seeds}; do
    while read -r -a line; do
        [ "$((${#pids[@]} - waited))" -lt "${jobs}" ] || wait "${pids[waited++]}" || status=1
        [ "${status}" -eq 0 ] || break 2
        model "${seed}" "${line[@]}" </dev/null &
        pids+=($!)
    done < <(models)
done
for pid in "${pids[@]:waited}"; do wait "${pid}" || status=1; done
[ "${status}" -eq 0 ] || exit 1
. ./path.sh
python3 -m espnet2_avsr_llm.bin.compare "${expdir}" | tee "${expdir}/compare.md"
