#!/usr/bin/env bash
# Trains, decodes and scores Llama-AVSR in three tasks: speech (ASR), lips (VSR), both (AVSR); on 433 h of LRS3.
# Options are those of avsr_llm.sh.
set -euo pipefail
cd "$(dirname "$0")"
. ./db.sh
[ -z "${AVHUBERT}" ] || ln -sfnT "${AVHUBERT}" avhubert_large  # the source in conf/train
export asr_configs= asr_args=  # avsr_llm.sh sets them, and local/data.sh reads them

./avsr_llm.sh \
    --train_set train_433h \
    --valid_set valid \
    --test_sets test \
    --noise_snrs llama_avsr \
    --asr_configs "conf/train/llama_avsr_avsr.yaml conf/train/llama_avsr_vsr.yaml conf/train/llama_avsr_asr.yaml" \
    --inference_config conf/decode/beam15.yaml \
    --ngpu 1 \
    --gpu_inference true \
    "$@"
