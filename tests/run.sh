#!/usr/bin/env bash
# Installs what the tests need (into .venv, unless the python3 in use has it) and runs them; options go to pytest.
set -euo pipefail
cd "$(dirname "$0")/.."
template=egs2/TEMPLATE/avsr_llm1

"${template}/utils/install.sh" --extras "mini analysis test"
. "${template}/path.sh"
python3 -m espnet2_avsr_llm.bin.roi_models
# one process a core; each keeps to one thread (path.sh)
exec python3 -m pytest --numprocesses auto --dist loadfile --durations 10 "$@"
