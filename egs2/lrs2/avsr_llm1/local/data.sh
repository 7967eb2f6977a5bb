#!/usr/bin/env bash
# Writes data/{train_28h,train_223h,valid,test} of the corpus in ${LRS2}.
set -e
set -u
set -o pipefail

log() {
    local fname=${BASH_SOURCE[1]##*/}
    echo -e "$(date '+%Y-%m-%dT%H:%M:%S') (${fname}:${BASH_LINENO[0]}:${FUNCNAME[1]}) $*"
}

help_message="Usage: $0"

. ./path.sh
. ./utils/parse_options.sh
. ./db.sh

if [ $# -ne 0 ]; then
    log "Error: found the argument $1; expected options only. ${help_message}"
    exit 2
fi
if [ -z "${LRS2}" ]; then
    log "Error: LRS2 is empty: give the corpus's folder in db.sh (README.md says how to obtain it)"
    exit 2
fi

python3 -m espnet2_avsr_llm.bin.prepare lrs2 "${LRS2}"
log "Successfully finished. [elapsed=${SECONDS}s]"
