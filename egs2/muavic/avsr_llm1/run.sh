#!/usr/bin/env bash
# Trains, decodes and scores Llama-AVSR in three tasks: speech (ASR), lips (VSR), both (AVSR); on MuAViC: one model for all of ${languages}.
# Options are those of avsr_llm.sh.
set -euo pipefail
cd "$(dirname "$0")"
export languages=${languages:-ar de el es fr it pt ru} # or some of them: languages="es fr" ./run.sh; English (en) needs LRS3

# shellcheck disable=SC2086
./avsr_llm.sh \
    --train_set train \
    --valid_set valid \
    --test_sets "$(printf 'test_%s ' ${languages})" \
    --noise_snrs llama_avsr \
    --dump_args "--crop given" \
    --asr_args "--audio_frontend_conf arch=whisper-medium" \
    --asr_configs "conf/train/llama_avsr_avsr.yaml conf/train/llama_avsr_vsr.yaml conf/train/llama_avsr_asr.yaml" \
    --inference_config conf/decode/beam15.yaml \
    --ngpu 1 \
    --gpu_inference true \
    "$@"
