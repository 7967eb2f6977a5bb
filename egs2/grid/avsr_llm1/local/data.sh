#!/usr/bin/env bash
# Writes data/{train,valid,test} of the corpus in ${GRID}.
set -e
set -u
set -o pipefail

log() {
    local fname=${BASH_SOURCE[1]##*/}
    echo -e "$(date '+%Y-%m-%dT%H:%M:%S') (${fname}:${BASH_LINENO[0]}:${FUNCNAME[1]}) $*"
}

split=local/s1.list # unseen or overlapped speakers of the whole corpus, or a file of lines `speaker_clip set`

help_message="Usage: $0 [--split ${split}]"

. ./path.sh
. ./utils/parse_options.sh
. ./db.sh

if [ $# -ne 0 ]; then
    log "Error: found the argument $1; expected options only. ${help_message}"
    exit 2
fi
if [ -z "${GRID}" ]; then
    log "Error: GRID is empty: give the corpus's folder in db.sh (README.md says how to obtain it)"
    exit 2
fi

python3 -m espnet2_avsr_llm.bin.prepare grid "${GRID}" --split "${split}"
log "Successfully finished. [elapsed=${SECONDS}s]"
