#!/usr/bin/env bash
# Trains, decodes and scores Llama-AVSR on GRID in three tasks: speech (ASR), lips (VSR), both (AVSR). By default it takes 800 clips of
# speaker s1 and the mini recipe's pretrained parts, trained further on them in stage 5. Options are those of avsr_llm.sh.
set -euo pipefail
cd "$(dirname "$0")"

./avsr_llm.sh \
    --train_set train \
    --valid_set valid \
    --test_sets "test valid" \
    --noise_snrs "0 -5" \
    --asr_configs "conf/train/mini/llama_avsr_avsr.yaml conf/train/mini/llama_avsr_vsr.yaml conf/train/mini/llama_avsr_asr.yaml" \
    --asr_args "--max_epoch 16" \
    --skip_packing false \
    --skip_analysis true \
    "$@"
