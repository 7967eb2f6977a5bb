#!/usr/bin/env bash
# Writes data/{train,valid}, of all languages asked for, and data/test_<language> of the corpus in ${MUAVIC}.
set -e
set -u
set -o pipefail

log() {
    local fname=${BASH_SOURCE[1]##*/}
    echo -e "$(date '+%Y-%m-%dT%H:%M:%S') (${fname}:${BASH_LINENO[0]}:${FUNCNAME[1]}) $*"
}

languages=${languages:-} # such as "es fr", all that are there if empty; run.sh exports it

help_message="Usage: [languages=\"es fr\"] $0"

. ./path.sh
. ./utils/parse_options.sh
. ./db.sh

if [ $# -ne 0 ]; then
    log "Error: found the argument $1; expected options only. ${help_message}"
    exit 2
fi
if [ -z "${MUAVIC}" ]; then
    log "Error: MUAVIC is empty: give the corpus's folder in db.sh (README.md says how to obtain it)"
    exit 2
fi

# shellcheck disable=SC2086
python3 -m espnet2_avsr_llm.bin.prepare muavic "${MUAVIC}" --languages ${languages}
languages=${languages:-$(cd data && echo test_?? | sed 's/test_//g')}
for dset in train valid; do
    # shellcheck disable=SC2046,SC2086
    python3 -m espnet2_avsr_llm.bin.datadir combine $(printf "data/${dset}_%s " ${languages}) --out_dir "data/${dset}"
done
log "Successfully finished. [elapsed=${SECONDS}s]"
