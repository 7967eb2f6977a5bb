#!/usr/bin/env bash
# Builds a small talking-face corpus and trains, decodes and scores Llama-AVSR on it in three tasks: speech (ASR), lips (VSR), both
# (AVSR). Options are those of avsr_llm.sh, e.g.: ./run.sh --stage 11 --asr_configs conf/train/mini/llama_avsr_vsr.yaml
set -euo pipefail
cd "$(dirname "$0")"

./avsr_llm.sh \
    --train_set train \
    --valid_set valid \
    --test_sets test \
    --noise_snrs "0 -5 -10" \
    --asr_configs "conf/train/mini/llama_avsr_avsr.yaml conf/train/mini/llama_avsr_vsr.yaml conf/train/mini/llama_avsr_asr.yaml" \
    --skip_packing false \
    --skip_analysis true \
    --analysis_args "--num_utts 10 --max_evals 800" \
    "$@"
