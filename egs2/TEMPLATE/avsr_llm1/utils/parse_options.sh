# Sourced: takes `--some-name value` (dashes or underscores) from "$@" and sets the variable some_name, which must exist before.
# `--config FILE` sources a file of assignments, `--help` calls print_help where there is such a function, else prints
# ${help_message}. What is no option stays in "$@".
while [ $# -gt 0 ]; do
    case "$1" in
        --help | -h)
            if declare -F print_help >/dev/null; then print_help; else printf '%s\n' "${help_message:-No help found.}"; fi
            exit 0
            ;;
        --config)
            # shellcheck disable=SC1090
            . "$2"
            shift 2
            ;;
        --*=*)
            echo "$0: found $1, expected --name value" >&2
            exit 1
            ;;
        --*)
            _name=${1#--}
            _name=${_name//-/_}
            if ! [[ "${_name}" =~ ^[a-z_][a-z0-9_]*$ ]] || [ -z "${!_name+set}" ]; then
                echo "$0: invalid option $1 (see --help)" >&2
                exit 1
            fi
            if [ $# -lt 2 ]; then
                echo "$0: $1 needs a value" >&2
                exit 1
            fi
            case "${!_name},$2" in
                true,true | true,false | false,true | false,false) ;;
                true,* | false,*)
                    echo "$0: $1 expects true or false, found '$2'" >&2
                    exit 1
                    ;;
            esac
            printf -v "${_name}" '%s' "$2"
            shift 2
            ;;
        *) break ;;
    esac
done
