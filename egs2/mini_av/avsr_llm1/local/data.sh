#!/usr/bin/env bash
# Builds the talking-face corpus below ${MINI_AV} and writes data/{train,valid,test}.
set -e
set -u
set -o pipefail

log() {
    local fname=${BASH_SOURCE[1]##*/}
    echo -e "$(date '+%Y-%m-%dT%H:%M:%S') (${fname}:${BASH_LINENO[0]}:${FUNCNAME[1]}) $*"
}

train_clips=600
train_speakers=30
valid_clips=40
valid_speakers=5
test_clips=160
test_speakers=16
nj=2    # processes
seed=0  # another seed gives other faces and sentences

help_message=$(cat << EOF
Usage: $0 [--train_clips ${train_clips}] [--train_speakers ${train_speakers}] [--valid_clips ${valid_clips}] [--valid_speakers ${valid_speakers}]
    [--test_clips ${test_clips}] [--test_speakers ${test_speakers}] [--nj ${nj}] [--seed ${seed}]
EOF
)

. ./path.sh
. ./utils/parse_options.sh
. ./db.sh

if [ $# -ne 0 ]; then
    log "Error: found the argument $1; expected options only. ${help_message}"
    exit 2
fi

[ "${MINI_AV}" = downloads ] && MINI_AV=downloads/mini_av

log "Building the corpus in ${MINI_AV}"
python3 local/make_corpus.py --out "${MINI_AV}" --seed "${seed}" --nj "${nj}" \
    --split "train:${train_clips}:${train_speakers}" \
    --split "valid:${valid_clips}:${valid_speakers}" \
    --split "test:${test_clips}:${test_speakers}"

for dset in train valid test; do
    python3 local/make_datadir.py --corpus "${MINI_AV}" --split "${dset}" --out_dir "data/${dset}"
done
log "Successfully finished. [elapsed=${SECONDS}s]"
