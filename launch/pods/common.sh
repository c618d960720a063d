# shellcheck shell=bash
# What the three launchers share; sourced, not run.

# run COMMAND...: prints the command as one could type it, and runs it unless --dry_run was given.
run() {
  printf '%q ' "$@"
  printf '\n'
  if [[ "${DRY_RUN}" == 0 ]]; then
    "$@"
  fi
}

# show FILE TEXT: writes a file, or prints it with --dry_run.
show() {
  printf -- '--- %s\n%s\n---\n' "$1" "$2"
  if [[ "${DRY_RUN}" == 0 ]]; then
    printf '%s\n' "$2" > "$1"
  fi
}

fail() {
  printf 'error: %s\n' "$1" >&2
  exit 1
}

# needs TOOL ADVICE: stops where a command-line tool is missing; with --dry_run nothing is needed.
needs() {
  if [[ "${DRY_RUN}" == 0 ]] && ! command -v "$1" > /dev/null; then
    fail "$1 is not installed: $2"
  fi
}

# one_of NAME VALUE WORDS...: stops where the value is none of the words.
one_of() {
  local name="$1" value="$2" word
  shift 2
  for word in "$@"; do
    [[ "${value}" == "${word}" ]] && return
  done
  fail "${name} is '${value}'; it can be: $*"
}

# check_name NAME: stops where it is not one that clouds and file systems take.
check_name() {
  [[ "$1" =~ ^[a-z]([-a-z0-9]*[a-z0-9])?$ ]] \
    || fail "--name is '$1'; it must be of small letters, digits and hyphens, a letter first"
}

# warn_of_changes REPOSITORY: says which files a copy of the last commit leaves behind.
warn_of_changes() {
  local changes
  changes="$(git -C "$1" status --porcelain)"
  [[ -z "${changes}" ]] || printf 'warning: not committed, so not taken along:\n%s\n' "${changes}" >&2
}

# parse_flags --name=value... -- PROGRAM FLAGS...: sets NAME=value for the names in FLAGS, and PROGRAM to the rest.
parse_flags() {
  local name
  DRY_RUN=0
  PROGRAM=()
  while [[ $# -gt 0 ]]; do
    case "$1" in
      --dry_run) DRY_RUN=1 ;;
      --help) usage; exit 0 ;;
      --)
        shift
        PROGRAM=("$@")
        break
        ;;
      --*=*)
        name="${1%%=*}"
        name="${name#--}"
        one_of "flag --${name}" "${name}" "${FLAGS[@]}"
        printf -v "${name^^}" '%s' "${1#*=}"
        ;;
      *) fail "not a flag: $1 (flags are written --name=value; --help lists them)" ;;
    esac
    shift
  done
  [[ ${#PROGRAM[@]} -gt 0 ]] || fail "nothing to run: give it behind --, e.g. -- launch.sft --config=... --workdir=..."
}
