#!/usr/bin/env bash
# All stages of a recipe; run.sh calls it with the recipe's options. Stage numbers are those of ESPnet's asr.sh.
set -euo pipefail

log() {
    local fname=${BASH_SOURCE[1]##*/}
    echo "$(date '+%Y-%m-%dT%H:%M:%S') (${fname}:${BASH_LINENO[0]}:${FUNCNAME[1]}) $*"
}

# General
stage=0              # first stage
stop_stage=10000     # last stage
skip_stages=         # stages to leave out, e.g. "4 5"
skip_data_prep=false # leave out 1-5
skip_train=false     # leave out 4 and 6-11
skip_eval=false      # leave out 12 and 13
skip_packing=true    # leave out 14
skip_upload_hf=true  # leave out 15
skip_analysis=false  # leave out 16
python=python3
ngpu=0               # GPUs of one node; 0: CPU
num_nodes=1          # nodes of the training
nj=$(OMP_NUM_THREADS= nproc) # data preparation jobs; nproc alone would heed path.sh's own setting
num_threads=$(OMP_NUM_THREADS= nproc) # of training and decoding on the CPU
inference_nj=1       # decoding jobs of each test set; on GPUs each takes the next one of its machine
gpu_inference=false  # decode on a GPU
dumpdir=dump         # prepared features
expdir=exp           # experiments

# Data
local_data_opts=  # options for local/data.sh
train_set=        # names of the sets; test_sets may be several
valid_set=
test_sets=
min_wav_duration=0.1 # shortest and longest training utterance in seconds
max_wav_duration=24
dump_args=        # options of stage 3, e.g. "--crop avhubert" (avsr-llm dump --help)
noise_snrs=       # noise at these dB is a test condition beside clean, e.g. "0 -5"; or a paper's levels, e.g. avhubert
noise_types=babble # e.g. "babble musan_music noisex_white" (avsr-llm noise_list --help)
noise_args=       # where the noise is, e.g. "--musan /data/musan --noisex /data/noisex"
video_conditions= # damage to the video as test conditions, of blur, occlusion, dropped, frozen

# Model
asr_configs=   # training configurations, one or several: stages 10-14 run for each
asr_config=    # the same, by ESPnet's name
asr_args=      # options for training, e.g. "--max_epoch 5"
asr_tag=       # name of the experiment, for a single configuration
asr_exp=       # its folder
asr_stats_dir= # length files made before, instead of those of each configuration
inference_config=conf/decode/greedy.yaml
inference_args=
inference_requests= # what to decode with, e.g. "task=asr,audio_rate=4 max_llm_tokens=60"; default: all that was trained
inference_asr_model=valid.acc.ave.pth
inference_tag=
hf_repo=       # USER/NAME to upload to (stage 15)
analysis_args= # options for the Shapley values of stage 16, e.g. "--num_utts 100 --max_evals 2000"

print_help() { # the values are those in force: of the recipe's run.sh, and of what stands before --help
    local name comment
    printf '%s\n\n' "usage: $0 [--OPTION VALUE ...]   (dashes or underscores)" "Options and their values:"
    sed -n '/^# General/,/^analysis_args/s/^\([a-z_]*\)=[^#]*/\1 /p' "$0" |
        while read -r name comment; do echo "  --${name} ${!name}${comment:+  ${comment}}"; done
}
run_args=$*
. utils/parse_options.sh
if [ $# -ne 0 ]; then
    log "Error: found '$*', expected --option value (see --help)"
    exit 2
fi
if [ -z "${train_set}" ] || [ -z "${valid_set}" ] || [ -z "${test_sets}" ]; then
    log "Error: --train_set, --valid_set and --test_sets are needed (a recipe's run.sh gives them)"
    exit 2
fi
. ./path.sh
. ./cmd.sh
. ./db.sh

[ -z "${AVHUBERT}" ] || ln -sfnT "${AVHUBERT}" avhubert_large # the source in conf/train
[ -z "${asr_config}" ] || asr_configs=${asr_config}
# shellcheck disable=SC2086
set -- ${asr_configs}
for asr_config in "$@"; do
    if [ ! -f "${asr_config}" ]; then
        log "Error: --asr_configs names '${asr_config}', no such file in ${PWD}"
        exit 2
    fi
done
if [ $# -ne 1 ] && [ -n "${asr_tag}${asr_exp}${hf_repo}" ]; then
    log "Error: --asr_tag, --asr_exp and --hf_repo name one model, found $# configurations: '${asr_configs}'"
    exit 2
fi
[ -n "${inference_tag}" ] ||
    inference_tag=$(basename "${inference_config}" .yaml)${inference_args:+$(sed 's/--/_/g; s/[ |=\/]//g' <<<"${inference_args}")}_asr_model_${inference_asr_model%.pth}

# -- names --
data_feats=${dumpdir}/raw
noise_dir=${data_feats}/noise
train_noise=${noise_dir}/train.txt

case "${noise_snrs}" in # as in the papers
    avhubert) noise_snrs="10 5 0 -5 -10" ;; # arXiv:2201.01763, Whisper-Flamingo too
    auto_avsr) noise_snrs="12.5 7.5 2.5 -2.5 -7.5" ;;
    llama_avsr) noise_snrs="5 0 -5" ;;
    llama_smop) noise_snrs="7.5 5 2.5 0 -2.5" ;;
    mome) noise_snrs="7.5 5 2.5 0 -5" ;;
    omni_avsr) noise_snrs="5 2.5 0 -2.5 -5" ;;
    dr_shap_av) noise_snrs="10 7.5 5 2.5 0 -2.5 -5 -7.5 -10" ;;
esac
# shellcheck disable=SC2086
set -- ${noise_snrs}
# as noise_list writes them: 5, not 5.0
if [[ "$*" == *[!-0-9.\ ]* ]] || ! noise_snrs=$([ $# -eq 0 ] || printf '%g ' "$@" 2>/dev/null); then
    log "Error: --noise_snrs '$*': expected dB, or avhubert, auto_avsr, llama_avsr, llama_smop, mome, omni_avsr, dr_shap_av"
    exit 2
fi

args_tag() { # options of a training as part of a name, as asr.sh forms it
    sed 's/--/_/g; s/[ |=\/]//g' <<<"${asr_args}"
}

exp_of() { # CONFIG: its experiment folder
    local tag
    tag=${asr_tag:-$(basename "$1" .yaml)$(args_tag)}
    echo "${asr_exp:-${expdir}/${tag}}"
}

stats_of() { # CONFIG: its length files
    echo "${asr_stats_dir:-${expdir}/stats_$(basename "$1" .yaml)$(args_tag)}"
}

uses() { # CONFIG audio|video: does the model take this stream?
    grep -Eq "^$2_frontend:" "$1" && ! grep -Eq "^$2_frontend:[[:space:]]*(none|null|nil|~)?[[:space:]]*(#.*)?$" "$1"
}

conditions_of() { # CONFIG: test conditions that mean something to the model
    local kind snr
    printf 'clean'
    if uses "$1" audio && [ -n "${noise_snrs}" ]; then
        for kind in ${noise_types}; do
            for snr in ${noise_snrs}; do printf ' %s_%sdB' "${kind}" "${snr}"; done
        done
    fi
    if uses "$1" video; then
        for kind in ${video_conditions}; do printf ' %s' "${kind}"; done
    fi
}

# -- running --
run_logged() { # LOG COMMAND...: run a command that logs to LOG, showing how far it is; on failure its last lines
    # an exit status of ${tolerated} is no failure; JOB in LOG stands for the number of each job of an array
    local logfile=$1 parent=${BASHPID} follower status=0 bad=
    shift
    "${python}" utils/follow_log.py "${logfile/JOB/1}" "${parent}" &
    follower=$!
    "$@" || status=$?
    kill "${follower}" 2>/dev/null || true
    wait "${follower}" 2>/dev/null || true
    [ ! -t 1 ] || printf '\r\033[K'
    if [ "${status}" -ne 0 ] && [ "${status}" != "${tolerated:-}" ]; then
        while IFS= read -r bad; do
            grep -q '^# Ended (code 0)' "${bad}" || tail -n 20 "${bad}" >&2 || true
        done < <(compgen -G "${logfile/JOB/*}")
        log "Error: exit status ${status}, see ${logfile/JOB/*}"
        exit 1
    fi
}

threads() { # on the CPU a single process may use all cores
    if [ "$1" -eq 0 ]; then echo "${num_threads}"; else echo "${OMP_NUM_THREADS}"; fi
}

# -- stages --
stage_0() {
    utils/install.sh
    . ./path.sh
    "${python}" -m espnet2_avsr_llm.bin.roi_models
}

stage_1() {
    # which parts are missing is said now, not after days of face search; a recipe's own parts are not there yet
    # shellcheck disable=SC2086
    [ -e local/parts.sh ] || "${python}" -m espnet2_avsr_llm.bin.check_parts --early --config ${asr_configs} ${asr_args}
    # shellcheck disable=SC2086
    local/data.sh ${local_data_opts}
    # shellcheck disable=SC2046,SC2086
    "${python}" -m espnet2_avsr_llm.bin.datadir validate "data/${train_set}" "data/${valid_set}" --test $(printf 'data/%s ' ${test_sets})
}

stage_3() {
    local dset out
    for dset in "${train_set}" "${valid_set}" ${test_sets}; do
        out=${data_feats}/${dset}
        # test sets are not filtered by stage 4
        if [ "${dset}" = "${train_set}" ] || [ "${dset}" = "${valid_set}" ]; then out=${data_feats}/org/${dset}; fi
        log "data/${dset} -> ${out}"
        # each job does every nj-th utterance: the first one's bar stands for all
        # shellcheck disable=SC2086
        run_logged "${out}/log/dump.JOB.log" ${train_cmd} JOB=1:"${nj}" "${out}/log/dump.JOB.log" \
            "${python}" -m espnet2_avsr_llm.bin.dump --in_dir "data/${dset}" --out_dir "${out}" --nj "${nj}" --job JOB ${dump_args}
        # status 3: some files cannot be used, the others are dumped
        tolerated=3 run_logged "${out}/log/finish.log" ${train_cmd} "${out}/log/finish.log" \
            "${python}" -m espnet2_avsr_llm.bin.dump --in_dir "data/${dset}" --out_dir "${out}" --finish
        if [ -s "${out}/failed.jsonl" ]; then
            log "Warning: $(wc -l <"${out}/failed.jsonl") utterances of data/${dset} are left out, see ${out}/failed.jsonl"
        fi
    done
}

stage_4() {
    local dset
    for dset in "${train_set}" "${valid_set}"; do
        "${python}" -m espnet2_avsr_llm.bin.datadir filter --in_dir "${data_feats}/org/${dset}" --out_dir "${data_feats}/${dset}" \
            --min_wav_duration "${min_wav_duration}" --max_wav_duration "${max_wav_duration}"
    done
}

stage_5() {
    local asr_config
    if [ -n "${noise_snrs}" ]; then
        # shellcheck disable=SC2086
        "${python}" -m espnet2_avsr_llm.bin.noise_list --train_dir "${data_feats}/${train_set}" \
            --test_dir $(printf "${data_feats}/%s " ${test_sets}) --out_dir "${noise_dir}" \
            --types ${noise_types} --snrs ${noise_snrs} ${noise_args}
    fi
    # a recipe may train its pretrained parts further
    # shellcheck disable=SC2086
    [ ! -e local/parts.sh ] || local/parts.sh --train_dir "${data_feats}/${train_set}" --valid_dir "${data_feats}/${valid_set}" ${asr_configs}
    for asr_config in ${asr_configs}; do
        # shellcheck disable=SC2086
        "${python}" -m espnet2_avsr_llm.bin.check_parts --config "${asr_config}" ${asr_args}
    done
}

made_from() { # CONFIG: what its length files depend on, and its model with them
    local dset
    echo "asr_args: ${asr_args}"
    for dset in "${train_set}" "${valid_set}"; do
        echo "${dset}: $(cat "${data_feats}/${dset}"/{text,utt2num_samples,utt2num_frames} 2>/dev/null | cksum)"
    done
    grep -Ev '^[[:space:]]*(#|$)' "$1"
}

stage_10() {
    local asr_config stats
    if [ -n "${asr_stats_dir}" ] && [ "$(wc -w <<<"${asr_configs}")" -gt 1 ]; then
        log "Error: --asr_stats_dir ${asr_stats_dir} holds the length files of one configuration, found several: '${asr_configs}'"
        exit 2
    fi
    for asr_config in ${asr_configs}; do
        stats=$(stats_of "${asr_config}")
        if made_from "${asr_config}" | cmp -s - "${stats}/made_from"; then
            log "${stats} is up to date"
            continue
        fi
        rm -f "${stats}/made_from"
        # shellcheck disable=SC2086
        "${python}" -m espnet2_avsr_llm.bin.make_shape --config "${asr_config}" \
            --data_dirs "${data_feats}/${train_set}" "${data_feats}/${valid_set}" \
            --outs "${stats}/train/llm_shape" "${stats}/valid/llm_shape" ${asr_args}
        made_from "${asr_config}" >"${stats}/made_from"
    done
}

data_options() { # CONFIG train|valid SET: one option per line
    uses "$1" audio && printf -- '--%s_data_path_and_name_and_type\n%s,speech,speech\n' "$2" "${data_feats}/$3/wav.scp"
    uses "$1" video && printf -- '--%s_data_path_and_name_and_type\n%s,video,video\n' "$2" "${data_feats}/$3/video.scp"
    printf -- '--%s_data_path_and_name_and_type\n%s,text,text\n' "$2" "${data_feats}/$3/text"
    printf -- '--%s_shape_file\n%s\n' "$2" "$(stats_of "$1")/$2/llm_shape"
}

note_training() { # CONFIG: what its model is trained on, into its folder; a model that was begun on something else is refused
    local exp note
    exp=$(exp_of "$1")
    note=$(made_from "$1"; echo "lengths: $(cat "$(stats_of "$1")"/{train,valid}/llm_shape | cksum)")
    if [ -e "${exp}/checkpoint.pth" ] && [ -e "${exp}/trained_on" ] && ! diff "${exp}/trained_on" - <<<"${note}"; then
        log "Error: ${exp} was trained on something else (above, < then, > now). Name another --asr_tag or --expdir, or remove" \
            "that folder; to go on with this model all the same, remove ${exp}/trained_on"
        exit 2
    fi
    mkdir -p "${exp}"
    echo "${note}" >"${exp}/trained_on"
}

train() { # CONFIG THREADS
    local exp opts
    exp=$(exp_of "$1")
    log "ASR training started... log: '${exp}/train.log'"
    mapfile -t opts < <(data_options "$1" train "${train_set}"; data_options "$1" valid "${valid_set}")
    # a configuration may name its own noise
    if uses "$1" audio && [ -s "${train_noise}" ] && ! grep -q 'noise_file:' "$1"; then
        opts+=(--augment_conf "noise_file=${train_noise}")
    fi
    # shellcheck disable=SC2086
    OMP_NUM_THREADS=$2 run_logged "${exp}/train.log" \
        "${python}" -m espnet2.bin.launch --cmd "${cuda_cmd} --name ${exp##*/}" --log "${exp}/train.log" \
        --ngpu "${ngpu}" --num_nodes "${num_nodes}" --init_file_prefix "${exp}/.dist_init_" \
        --multiprocessing_distributed true -- \
        "${python}" -m espnet2_avsr_llm.bin.avsr_llm_train --config "$1" "${opts[@]}" \
        --resume true --output_dir "${exp}" ${asr_args}
}

stage_11() {
    local asr_config jobs=1 status=0 pid pids=() waited=0
    [ -n "${asr_stats_dir}" ] || stage_10 # other --asr_args may need other length files
    # on the CPU several models at once, a thread each, are done sooner than one after the other with all threads;
    # where no more can run, the oldest is waited for
    if [ "${ngpu}" -eq 0 ] && [[ "${asr_configs}" == *" "* ]]; then jobs=${num_threads}; fi
    for asr_config in ${asr_configs}; do note_training "${asr_config}"; done
    for asr_config in ${asr_configs}; do
        [ "$((${#pids[@]} - waited))" -lt "${jobs}" ] || wait "${pids[waited++]}" || status=1
        train "${asr_config}" "$((jobs > 1 ? 1 : $(threads "${ngpu}")))" &
        pids+=($!)
    done
    for pid in "${pids[@]:waited}"; do wait "${pid}" || status=1; done
    return "${status}"
}

decode() { # LOG OPTIONS COMMAND...: with these options of ${decode_cmd}; the jobs of one machine share its threads
    local all
    log "Decoding started... log: '${1/JOB/*}'"
    all=$(threads "${gpus}")
    # shellcheck disable=SC2086
    OMP_NUM_THREADS=$((all > inference_nj ? all / inference_nj : 1)) run_logged "$1" ${decode_cmd} $2 "$1" "${@:3}"
}

stage_12() {
    local asr_config exp dset out command gpus=0
    ! ${gpu_inference} || gpus=1
    for asr_config in ${asr_configs}; do
        exp=$(exp_of "${asr_config}")
        for dset in ${test_sets}; do
            out=${exp}/${inference_tag}/${dset}
            # shellcheck disable=SC2206,SC2207
            command=("${python}" -m espnet2_avsr_llm.bin.avsr_llm_inference --config "${inference_config}" --ngpu "${gpus}"
                --asr_train_config "${exp}/config.yaml" --asr_model_file "${exp}/${inference_asr_model}"
                --data_dir "${data_feats}/${dset}" --noise_dir "${noise_dir}/${dset}"
                --conditions $(conditions_of "${asr_config}") --output_dir "${out}"
                ${inference_requests:+--requests ${inference_requests}} ${inference_args})
            if [ "${inference_nj}" -eq 1 ]; then
                decode "${out}/decode.log" "--gpu ${gpus}" "${command[@]}"
            else
                command+=(--nj "${inference_nj}")
                decode "${out}/log/decode.JOB.log" "--gpu ${gpus} JOB=1:${inference_nj}" "${command[@]}" --job JOB
                run_logged "${out}/log/finish.log" ${decode_cmd} "${out}/log/finish.log" "${command[@]}" --finish
            fi
        done
    done
}

stage_13() {
    local asr_config exp dset exps=()
    for asr_config in ${asr_configs}; do
        exp=$(exp_of "${asr_config}")
        exps+=("${exp}")
        for dset in ${test_sets}; do
            "${python}" -m espnet2_avsr_llm.bin.score --ref "${data_feats}/${dset}/text" --decode_dir "${exp}/${inference_tag}/${dset}" \
                --asr_model_file "${exp}/${inference_asr_model}"
        done
    done
    "${python}" -m espnet2_avsr_llm.bin.results "${exps[@]}" --plot_dir "${expdir}"
}

packed_of() { # CONFIG: its archive
    local exp
    exp=$(exp_of "$1")
    echo "${exp}/${exp##*/}_${inference_asr_model%.pth}.zip"
}

stage_14() {
    local asr_config exp
    for asr_config in ${asr_configs}; do
        exp=$(exp_of "${asr_config}")
        "${python}" -m espnet2_avsr_llm.bin.pack --asr_train_config "${exp}/config.yaml" \
            --asr_model_file "${exp}/${inference_asr_model}" --option "${exp}/RESULTS.md" --outpath "$(packed_of "${asr_config}")"
    done
}

stage_15() {
    if [ -z "${hf_repo}" ]; then
        log "Error: --hf_repo is empty: give USER/NAME of the repository to upload to"
        exit 2
    fi
    "${python}" -m espnet2_avsr_llm.bin.upload_hf --packed_model "$(packed_of "${asr_configs}")" --hf_repo "${hf_repo}"
}

analyse() { # EXP NAME PROGRAM OPTION...: into EXP/analysis/NAME, of the first test set
    local log=$1/analysis/$2.log data=${data_feats}/${test_sets%% *} gpus=0
    ! ${gpu_inference} || gpus=1
    log "Analysis started... log: '${log}'"
    OMP_NUM_THREADS=$(threads "${gpus}") run_logged "${log}" ${decode_cmd} --gpu "${gpus}" "${log}" \
        "${python}" -m "espnet2_avsr_llm.bin.$3" --asr_train_config "$1/config.yaml" --data_dir "${data}" \
        --noise_dir "${noise_dir}/${data##*/}" --ngpu "${gpus}" --output_dir "$1/analysis/$2" "${@:4}"
}

stage_16() {
    local asr_config exp trained
    for asr_config in ${asr_configs}; do
        exp=$(exp_of "${asr_config}")
        trained="--asr_model_file ${exp}/${inference_asr_model}"
        # shellcheck disable=SC2046,SC2086
        {
            analyse "${exp}" sinks_before sinks
            analyse "${exp}" sinks sinks ${trained}
            if grep -Eq '^(projector: *smop|adapter: *mome)' "${asr_config}"; then analyse "${exp}" experts experts ${trained}; fi
            analyse "${exp}" shap shap ${trained} --conditions $(video_conditions= conditions_of "${asr_config}") ${analysis_args}
        }
        if [ -e "${exp}/RESULTS.md" ]; then "${python}" -m espnet2_avsr_llm.bin.results "${exp}" >/dev/null; fi
        "${python}" -m espnet2_avsr_llm.bin.report "${exp}"
    done
}

titles=(
    [0]="environment" [1]="data preparation for data/${train_set}, data/${valid_set}, ..." [3]="dump audio and mouth regions: data -> ${data_feats}"
    [4]="remove long, short and empty utterances" [5]="noise lists; pretrained parts" [10]="length files" [11]="training"
    [12]="decoding" [13]="scoring" [14]="pack models" [15]="upload to the Hugging Face hub"
    [16]="analysis: attention sinks, experts, Shapley values"
)
! ${skip_data_prep} || skip_stages+=" 1 2 3 4 5"
! ${skip_train} || skip_stages+=" 2 4 6 7 8 9 10 11"
! ${skip_eval} || skip_stages+=" 12 13"
! ${skip_packing} || skip_stages+=" 14"
! ${skip_upload_hf} || skip_stages+=" 15"
! ${skip_analysis} || skip_stages+=" 16"

log "$0 ${run_args}"
SECONDS=0
ran=
for number in {0..16}; do
    if [ "${number}" -lt "${stage}" ] || [ "${number}" -gt "${stop_stage}" ]; then
        continue
    elif [ -z "${titles[number]:-}" ]; then
        log "Stage ${number}: skipped (nothing to do here)"
    elif [[ " ${skip_stages} " == *" ${number} "* ]]; then
        log "Stage ${number}: skipped by option"
    else
        log "Stage ${number}: ${titles[number]}"
        "stage_${number}"
        ran+=" ${number} "
    fi
done
[[ "${ran}" != *" 13 "* ]] || cat "${expdir}/wer.txt"
log "Successfully finished. [elapsed=${SECONDS}s]"
