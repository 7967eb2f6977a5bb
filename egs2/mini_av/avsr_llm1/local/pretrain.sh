#!/usr/bin/env bash
# Makes the three frozen parts of the mini recipe (pretrained/whisper, pretrained/avhubert, pretrained/llama) from a split of the corpus
# with speakers of its own. The recipe ships the results; run this to make them anew.
set -e
set -u
set -o pipefail

log() {
    local fname=${BASH_SOURCE[1]##*/}
    echo -e "$(date '+%Y-%m-%dT%H:%M:%S') (${fname}:${BASH_LINENO[0]}:${FUNCNAME[1]}) $*"
}

clips=1500
speakers=60
voices=6000     # utterances that whisper hears besides, each by a random voice
held_out=4      # speakers on which the parts are measured
steps=          # optimiser steps of each part; empty: its own default
nj=2            # processes of data preparation
threads=1       # CPU threads of training
seed=1
work=exp/pretrain
out=pretrained

help_message=$(cat << EOF
Usage: $0 [--clips ${clips}] [--speakers ${speakers}] [--voices ${voices}] [--held_out ${held_out}] [--steps N] [--nj ${nj}] [--threads ${threads}] [--seed ${seed}] [--work ${work}] [--out ${out}]
EOF
)

. ./path.sh
. ./cmd.sh
. ./utils/parse_options.sh
. ./db.sh

if [ $# -ne 0 ]; then
    log "Error: found the argument $1; expected options only. ${help_message}"
    exit 2
fi

corpus=${work}/corpus
log "Building the pretraining corpus in ${corpus}"
python3 local/make_corpus.py --out "${corpus}" --seed "${seed}" --nj "${nj}" --labels --split "pretrain:${clips}:${speakers}"
python3 local/make_datadir.py --corpus "${corpus}" --split pretrain --out_dir "${work}/data"
dump="python3 -m espnet2_avsr_llm.bin.dump --in_dir ${work}/data --out_dir ${work}/dump"
${train_cmd} JOB=1:"${nj}" "${work}/dump/log/dump.JOB.log" ${dump} --nj "${nj}" --job JOB
${dump} --finish

for part in whisper avhubert llama; do
    log "Pretraining ${part}"
    python3 local/pretrain_parts.py "${part}" --data "${work}/data" --dump "${work}/dump" --work "${work}" --out "${out}" \
        --held_out "${held_out}" --voices "${voices}" --threads "${threads}" --seed "${seed}" ${steps:+--steps "${steps}"}
done
log "Successfully finished. [elapsed=${SECONDS}s]"
