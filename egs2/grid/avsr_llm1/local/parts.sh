#!/usr/bin/env bash
# Trains the mini recipe's parts further on the training set, into exp/pretrained (to which `pretrained` is a link): drawn lips and
# synthetic voices are not enough for a person. Does nothing for configurations that name no `pretrained/` part.
set -e
set -u
set -o pipefail

log() {
    local fname=${BASH_SOURCE[1]##*/}
    echo -e "$(date '+%Y-%m-%dT%H:%M:%S') (${fname}:${BASH_LINENO[0]}:${FUNCNAME[1]}) $*"
}

train_dir=dump/raw/train # to train on
valid_dir=dump/raw/valid # to measure on
steps=                   # optimiser steps of each part; empty: its own default

help_message="Usage: $0 [--train_dir ${train_dir}] [--valid_dir ${valid_dir}] [--steps N] CONFIG..."

. ./path.sh
. ./cmd.sh
. ./utils/parse_options.sh
. ./db.sh

if ! grep -qs 'source: pretrained/' "$@"; then exit 0; fi
mini=../../mini_av/avsr_llm1
work=exp/adapt
trained_on=$(cksum <"${train_dir}/text")
for folder in exp/pretrained "${work}"; do
    if [ -d "${folder}" ] && [ "$(cat "${folder}/trained_on")" != "${trained_on}" ]; then
        log "Error: ${folder} was trained on other clips than those of ${train_dir}: remove exp, or work in a copy of this folder"
        exit 2
    fi
done
if [ -d exp/pretrained ]; then
    log "exp/pretrained is there"
    exit 0
fi

adapt() { # PART
    # the heads are written last
    [ -e "${work}/$1_heads.pt" ] || PYTHONPATH=${mini}/local:${PYTHONPATH} ${train_cmd} "${work}/log/$1.log" \
        python3 local/adapt_parts.py "$1" --corpus "${GRID}" --train "${train_dir}" --valid "${valid_dir}" \
        --pretrained "${mini}/pretrained" --out "${work}" ${steps:+--steps "${steps}"}
}

mkdir -p "${work}"
echo "${trained_on}" >"${work}/trained_on"
log "Training the parts further... log: '${work}/log/*.log'"
adapt whisper &
other=$!
status=0
adapt avhubert || status=$?
wait "${other}" || status=$?
[ "${status}" -eq 0 ] || exit "${status}"
adapt llama
mkdir -p exp/pretrained.part
cp -r "${work}"/{whisper,avhubert,llama,trained_on} exp/pretrained.part
mv exp/pretrained.part exp/pretrained
log "Successfully finished. [elapsed=${SECONDS}s]"
