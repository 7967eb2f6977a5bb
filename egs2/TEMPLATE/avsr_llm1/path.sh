# Sourced by every script: which Python runs, and what the programs find in their environment.
AVSR_LLM_ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../../.." && pwd -P)
# an environment that exists already may be named from outside
AVSR_LLM_ENV=${AVSR_LLM_ENV:-${AVSR_LLM_ROOT}/.venv}
if [ -x "${AVSR_LLM_ENV}/bin/python" ]; then
    PATH=${AVSR_LLM_ENV}/bin:${PATH}
fi
export AVSR_LLM_ENV
export PATH=${PWD}/utils:${PATH}
# a recipe runs the package of its own checkout
export PYTHONPATH=${AVSR_LLM_ROOT}${PYTHONPATH:+:${PYTHONPATH}}
export PYTHONIOENCODING=UTF-8
export LC_ALL=C.UTF-8
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
# a thread that waits must leave its core to the data workers
export OMP_WAIT_POLICY=${OMP_WAIT_POLICY:-PASSIVE}
# ESPnet would switch NCCL to INFO, which floods the training log
export NCCL_DEBUG=${NCCL_DEBUG:-WARN}
export TOKENIZERS_PARALLELISM=false
export HF_HUB_DISABLE_PROGRESS_BARS=1
# progress bars go to log files as well
export TQDM_MININTERVAL=2
