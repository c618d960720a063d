#!/usr/bin/env bash
# A run on Cloud TPU as a queued resource: asks for the machines, waits, copies this checkout to every host, installs
# it, and starts the same line on all of them; again after every preemption, until the run is done.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

usage() {
  cat << 'EOF'
launch/pods/tpu_queued_resource.sh --name=run1 --project=P --zone=us-west4-a --type=v5litepod-64 [flags] -- PROGRAM FLAGS

  --name       of the queued resource and of its node
  --project, --zone
  --type       accelerator type: v5litepod-64 is launch.plan's v5e:8x8
  --version    of the runtime (default: v2-alpha-tpuv5-lite, for v5e; v2-alpha-tpuv5 for v5p, v2-alpha-tpuv6e for v6e)
  --spot       1 for machines that may be taken away and cost less (default: 0)
  --tries      how often the machines are asked for, when they are taken away (default: 10)
  --dry_run    print what would be done; needs no gcloud

PROGRAM FLAGS is the line to run; its --workdir and data lie on a disk that all hosts mount:
  launch.sft --config=configs/sft.py:qwen2_vl_7b --workdir=/mnt/shared/run1
EOF
}

FLAGS=(name project zone type version spot tries)
VERSION=v2-alpha-tpuv5-lite
SPOT=0
TRIES=10
NAME="" PROJECT="" ZONE="" TYPE=""
parse_flags "$@"
for flag in NAME PROJECT ZONE TYPE; do
  [[ -n "${!flag}" ]] || fail "--${flag,,} is missing"
done
one_of --spot "${SPOT}" 0 1
needs gcloud "https://cloud.google.com/sdk/docs/install"

place=("--project=${PROJECT}" "--zone=${ZONE}")
tpu=(gcloud compute tpus)
bundle="/tmp/${NAME}.tar.gz"
repository="$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)"
printf -v line '%q ' "${PROGRAM[@]}"

ask() {
  local price=()
  [[ "${SPOT}" == 1 ]] && price=(--spot)
  run "${tpu[@]}" queued-resources create "${NAME}" "--node-id=${NAME}" "${place[@]}" \
    "--accelerator-type=${TYPE}" "--runtime-version=${VERSION}" ${price[@]+"${price[@]}"}
}

state() {
  "${tpu[@]}" queued-resources describe "${NAME}" "${place[@]}" '--format=value(state.state)' 2> /dev/null || echo NONE
}

wait_until_active() {
  echo "# wait until the queued resource is ACTIVE"
  [[ "${DRY_RUN}" == 1 ]] && return
  local now
  while now="$(state)" && [[ "${now}" != ACTIVE ]]; do
    case "${now}" in
      FAILED | SUSPENDED | NONE) return 1 ;;
    esac
    sleep 30
  done
}

on_all_hosts() {
  run "${tpu[@]}" tpu-vm ssh "${NAME}" "${place[@]}" --worker=all "--command=$1"
}

install() {
  run git -C "${repository}" archive --format=tar.gz "--output=${bundle}" HEAD
  run "${tpu[@]}" tpu-vm scp "${bundle}" "${NAME}:run.tar.gz" "${place[@]}" --worker=all
  on_all_hosts 'mkdir -p run && tar -xzf run.tar.gz -C run && cd run && python3 -m venv .venv && .venv/bin/pip install -q -e ".[tpu]"'
}

give_back() {
  run "${tpu[@]}" queued-resources delete "${NAME}" "${place[@]}" --force --quiet
}

# On a host: exit code 1 is an error that waits for a person; any other (75: saved and stopped, or a process was lost;
# 134: the first one was) resumes.
start="cd run && until .venv/bin/python -m ${line}; do [ \$? -gt 1 ] || exit 1; done"

for ((try = 1; try <= TRIES; try++)); do
  ask
  if wait_until_active && install && on_all_hosts "${start}"; then
    give_back
    exit 0
  fi
  sleep 60 # until it is known whether the machines are gone
  if [[ "$(state)" == ACTIVE ]]; then
    give_back
    fail "the run stopped on machines that are there; mend what its log says and run this line again"
  fi
  echo "# try ${try} of ${TRIES}: the machines are gone; what is saved goes on with others" >&2
  give_back
done
fail "the run did not end within ${TRIES} tries; what is saved in its --workdir is whole"
