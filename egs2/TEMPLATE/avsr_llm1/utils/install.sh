#!/usr/bin/env bash
# Makes the environment that the recipes and tests run in: .venv at the repository root, unless the python3 in use has all that
# is needed. Safe to run again at any time, also after a kill.
set -euo pipefail

help_message="usage: $0 [--python PYTHON] [--extras 'mini analysis test']
  --python  Python 3.10 to 3.12 to build .venv from (default: the first that works of python3.11, 3.12, 3.10, python3)
  --extras  extras of setup.py, besides what every recipe needs (default: mini analysis)"
python=
extras='mini analysis'
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)
. "${here}/parse_options.sh"
# path.sh finds the environment in use
. "${here}/../path.sh"
root=${AVSR_LLM_ROOT}
env=${AVSR_LLM_ENV}
unfinished=${env}/.unfinished

say() { echo "install.sh: $*" >&2; }

works() { # PYTHON: is it of a right version, with venv and pip to start from?
    "$1" -c 'import ensurepip, sys, venv; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 12))' >/dev/null 2>&1
}

find_python() {
    local candidate
    for candidate in ${python:-python3.11 python3.12 python3.10 python3}; do
        if works "${candidate}"; then
            command -v "${candidate}"
            return
        fi
    done
    say "no usable Python among: ${python:-python3.11 python3.12 python3.10 python3}."
    say "Needed: Python 3.10, 3.11 or 3.12 with the modules venv and ensurepip (Debian and Ubuntu: apt install python3-venv),"
    say "named by --python if it is not in PATH."
    exit 1
}

warn_about_compiler() { # PYTHON: pyworld, which ESPnet needs, has no wheel and is compiled
    local header
    header=$("$1" -c 'import sysconfig; print(sysconfig.get_path("include") + "/Python.h")')
    if ! command -v "${CXX:-g++}" >/dev/null 2>&1; then
        say "no C++ compiler (${CXX:-g++}): pyworld, a dependency of ESPnet, cannot be built (apt install build-essential)"
    fi
    if [ ! -e "${header}" ]; then
        say "no Python headers (${header}): pyworld, a dependency of ESPnet, cannot be built (apt install python3-dev)"
    fi
}

install_into() { # VENV_PYTHON
    local constraints=()
    # some of the exact versions do not exist for Python 3.10: it takes the newest that setup.py allows
    if "$1" -c 'import sys; sys.exit(sys.version_info[:2] == (3, 10))'; then
        constraints=(--constraint "${root}/conf/constraints.txt")
    fi
    # pip 26.3 rejects ci_sdr, a dependency of ESPnet
    "$1" -m pip install --quiet "pip<26.3" &&
        "$1" -m pip install --progress-bar on ${constraints[@]+"${constraints[@]}"} --editable "${root}[${extras// /,}]"
}

# shellcheck disable=SC2086
if [ ! -e "${unfinished}" ] && python3 "${here}/check_install.py" "${root}/setup.py" ${extras} 2>/dev/null; then
    say "$(command -v python3) has all that is needed"
    exit 0
fi
base=$(find_python)
say "installing into ${env} with ${base} ($("${base}" -c 'import platform; print(platform.python_version())')); a few minutes, 6 GB"
warn_about_compiler "${base}"
if [ ! -x "${env}/bin/python" ] || ! "${env}/bin/python" -m pip --version >/dev/null 2>&1; then
    "${base}" -m venv --clear "${env}"
fi
was_unfinished=$([ -e "${unfinished}" ] && echo true || echo false)
touch "${unfinished}"
if ! install_into "${env}/bin/python"; then
    if ! ${was_unfinished}; then
        say "pip failed: see above"
        warn_about_compiler "${base}"
        exit 1
    fi
    # a killed installation can leave half a package that pip cannot replace
    say "pip failed on an environment left by a killed run: building it anew"
    "${base}" -m venv --clear "${env}"
    touch "${unfinished}"
    install_into "${env}/bin/python" || { warn_about_compiler "${base}"; exit 1; }
fi
rm "${unfinished}"
# shellcheck disable=SC2086
"${env}/bin/python" "${here}/check_install.py" "${root}/setup.py" ${extras}
say "installed"
