#!/usr/bin/env bash
# Trains, decodes and scores Llama-AVSR in three tasks: speech (ASR), lips (VSR), both (AVSR); on 433 h of LRS3.
# Options are those of avsr_llm.sh.
set -euo pipefail
cd "$(dirname "$0")"

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
