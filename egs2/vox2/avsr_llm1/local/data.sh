#!/usr/bin/env bash
# Writes data/{train,valid,test} of the corpus in ${VOX2}, with transcripts by Whisper, which goes on where it was killed.
set -e
set -u
set -o pipefail

log() {
    local fname=${BASH_SOURCE[1]##*/}
    echo -e "$(date '+%Y-%m-%dT%H:%M:%S') (${fname}:${BASH_LINENO[0]}:${FUNCNAME[1]}) $*"
}

clip_list=                        # clips to take, such as AV-HuBERT's vox-en.id.gz, the English ones; all if empty
whisper=openai/whisper-medium.en  # folder or hub id
language=en                       # a multilingual Whisper leaves out what it hears as another language
batch_size=16
nj=1                              # parts, each with a Whisper of its own
ngpu=0                            # GPUs of a part: 0 or 1

help_message="Usage: $0 [--clip_list FILE] [--whisper ${whisper}] [--language ${language}] [--batch_size ${batch_size}] [--nj ${nj}] [--ngpu ${ngpu}]"

. ./path.sh
. ./cmd.sh
. ./utils/parse_options.sh
. ./db.sh

if [ $# -ne 0 ]; then
    log "Error: found the argument $1; expected options only. ${help_message}"
    exit 2
fi
if [ -z "${VOX2}" ]; then
    log "Error: VOX2 is empty: give the corpus's folder in db.sh (README.md says how to obtain it)"
    exit 2
fi

if [ -e data/unlabelled/.done ]; then
    log "data/unlabelled is there already; remove it to read the corpus again"
else
    python3 -m espnet2_avsr_llm.bin.prepare vox2 "${VOX2}" --out_dir data/unlabelled ${clip_list:+--clip_list "${clip_list}"}
    touch data/unlabelled/.done
fi
sets="--in_dirs data/unlabelled/train data/unlabelled/valid data/unlabelled/test --out_dirs data/train data/valid data/test"
log "Whisper: see data/log/whisper.*.log"
python3 utils/follow_log.py data/log/whisper.1.log $$ & # the first part's bar stands for all; ends with this script
follower=$!
# shellcheck disable=SC2086
${train_cmd} --gpu "${ngpu}" JOB=1:"${nj}" data/log/whisper.JOB.log \
    python3 -m espnet2_avsr_llm.bin.pseudo_label ${sets} --whisper "${whisper}" --language "${language}" \
    --batch_size "${batch_size}" --ngpu "${ngpu}" --nj "${nj}" --job JOB
kill "${follower}" 2>/dev/null || true
[ ! -t 1 ] || printf '\r\033[K'
# shellcheck disable=SC2086
python3 -m espnet2_avsr_llm.bin.pseudo_label ${sets} --finish
log "Successfully finished. [elapsed=${SECONDS}s]"
