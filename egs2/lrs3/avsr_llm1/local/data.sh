#!/usr/bin/env bash
# Writes data/{train_30h,train_433h,valid,test} of the corpus in ${LRS3}, and with --vox2 data/train_1759h; or, with --train_csv,
# data/{train_csv,valid_csv,test_csv} of the mouth crops there.
set -e
set -u
set -o pipefail

log() {
    local fname=${BASH_SOURCE[1]##*/}
    echo -e "$(date '+%Y-%m-%dT%H:%M:%S') (${fname}:${BASH_LINENO[0]}:${FUNCNAME[1]}) $*"
}

valid_list= # clips for validation, a line trainval/<video>/<clip> each, such as AV-HuBERT's lrs3-valid.id; drawn if empty
vox2=       # folder of VoxCeleb2's labelled sets: ../../vox2/avsr_llm1/data after its stage 1
train_csv=  # label files of auto_avsr or Llama-AVSR: start from these and their mouth crops
valid_csv=  # drawn from train_csv if empty
test_csv=

help_message="Usage: $0 [--valid_list FILE] [--vox2 FOLDER] [--train_csv FILE --test_csv FILE [--valid_csv FILE]]"

. ./path.sh
. ./utils/parse_options.sh
. ./db.sh

if [ $# -ne 0 ]; then
    log "Error: found the argument $1; expected options only. ${help_message}"
    exit 2
fi
if [ -z "${LRS3}" ]; then
    log "Error: LRS3 is empty: give the corpus's folder in db.sh (README.md says how to obtain it)"
    exit 2
fi

if [ -n "${train_csv}" ]; then
    python3 -m espnet2_avsr_llm.bin.prepare labels "${LRS3}" --train_csv "${train_csv}" --test_csv "${test_csv}" ${valid_csv:+--valid_csv "${valid_csv}"}
else
    python3 -m espnet2_avsr_llm.bin.prepare lrs3 "${LRS3}" ${valid_list:+--valid_list "${valid_list}"}
fi
if [ -n "${vox2}" ]; then
    for dset in train valid test; do
        if [ ! -e "${vox2}/${dset}/text" ]; then
            log "Error: --vox2: no ${vox2}/${dset}/text; make it with ../../vox2/avsr_llm1/run.sh --stage 1 --stop_stage 1"
            exit 2
        fi
    done
    python3 -m espnet2_avsr_llm.bin.datadir combine data/train_433h "${vox2}"/{train,valid,test} \
        --apart_from data/test --out_dir data/train_1759h
fi
log "Successfully finished. [elapsed=${SECONDS}s]"
