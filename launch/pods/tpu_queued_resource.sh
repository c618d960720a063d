#!/usr/bin/env bash
# A run on Cloud TPU as a queued resource: asks for the machines, waits, copies this checkout's last commit to every host,
# installs it, starts the same line on all of them, and watches; again after every preemption, until the run is done.
# Stay connected (in tmux on a machine that stays up): who watches also asks for machines again. What runs on the hosts
# needs no connection, and the same line goes on watching.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

usage() {
  cat << 'EOF'
launch/pods/tpu_queued_resource.sh --name=run1 --project=P --zone=us-west4-a --type=v5litepod-64 [flags] -- PROGRAM FLAGS

  --name       of the queued resource and of its node
  --project, --zone
  --type       accelerator type: v5litepod-64 is launch.plan's v5e:8x8, v6e-64 its v6e:8x8, v5p-128 its v5p:4x4x4
  --version    of the runtime (default: the one for v5litepod, v5p and v6e)
  --spot       1 for machines that may be taken away and cost less (default: 0)
  --setup      a command for every new host, before anything else, such as
               'sudo mkdir -p /mnt/shared && sudo mount -t nfs 10.0.0.2:/share /mnt/shared'
  --tries      how often the machines are asked for, when they are taken away (default: 10)
  --dry_run    print what would be done; needs no gcloud

PROGRAM FLAGS is the line to run; its --workdir and data lie in a bucket, or on a disk that --setup mounts on all hosts:
  launch.sft --config=configs/sft.py:qwen2_vl_7b --workdir=gs://BUCKET/run1
EOF
}

FLAGS=(name project zone type version spot setup tries)
SPOT=0
TRIES=10
NAME="" PROJECT="" ZONE="" TYPE="" VERSION="" SETUP=""
parse_flags "$@"
for flag in NAME PROJECT ZONE TYPE; do
  [[ -n "${!flag}" ]] || fail "--${flag,,} is missing"
done
check_name "${NAME}"
one_of --spot "${SPOT}" 0 1
case "${VERSION:-${TYPE}}" in
  v5litepod-*) VERSION=v2-alpha-tpuv5-lite ;;
  v5p-*) VERSION=v2-alpha-tpuv5 ;;
  v6e-*) VERSION=v2-alpha-tpuv6e ;;
  *) [[ -n "${VERSION}" ]] || fail "--version is missing: which runtime --type=${TYPE} takes is not known here" ;;
esac
needs gcloud "https://cloud.google.com/sdk/docs/install"

place=("--project=${PROJECT}" "--zone=${ZONE}")
tpu=(gcloud compute tpus)
bundle="/tmp/${NAME}.tar.gz"
keep="/tmp/${NAME}.sh"
repository="$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)"
printf -v line '%q ' "${PROGRAM[@]}"

state() {
  "${tpu[@]}" queued-resources describe "${NAME}" "${place[@]}" '--format=value(state.state)' 2> /dev/null || echo NONE
}

ask() {
  local price=()
  [[ "${DRY_RUN}" == 1 || "$(state)" == NONE ]] || return 0 # this line was run before
  [[ "${SPOT}" == 1 ]] && price=(--spot)
  run "${tpu[@]}" queued-resources create "${NAME}" "--node-id=${NAME}" "${place[@]}" \
    "--accelerator-type=${TYPE}" "--runtime-version=${VERSION}" ${price[@]+"${price[@]}"}
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

on_hosts() { # WHICH COMMAND
  run "${tpu[@]}" tpu-vm ssh "${NAME}" "${place[@]}" "--worker=$1" "--command=$2"
}

# What every host does: installs (its own Python may be too old), and runs, again after an end that is resumed from. The
# lock is held as long as that lasts; what it ended with is in the file ended.
write_keep() {
  show "${keep}" "#!/usr/bin/env bash
set -euo pipefail
cd ~/run
exec 9> lock
flock -n 9 || exit 0
rm -f ended
trap 'echo \$? > ended' EXIT
${SETUP}
export PATH=~/.local/bin:\${PATH}
command -v uv > /dev/null || curl -LsSf https://astral.sh/uv/install.sh | sh
uv venv -q --clear --python 3.12 .venv
uv pip install -q --python .venv/bin/python -e '.[tpu,cloud]'
for life in {1..100}; do
  code=0
  .venv/bin/python -m ${line} || code=\$?
  # 75: saved and stopped, or a process was lost; 134: the first one was. All else waits for a person
  [[ \${code} == 75 || \${code} == 134 ]] || break
  sleep 30
done
exit \${code}"
}

begin() {
  if [[ "${DRY_RUN}" == 0 ]] && on_hosts all 'cd run && ! flock -n lock true' 2> /dev/null; then
    echo "# it runs already"
    return
  fi
  warn_of_changes "${repository}"
  run git -C "${repository}" archive --format=tar.gz "--output=${bundle}" HEAD &&
    write_keep &&
    run "${tpu[@]}" tpu-vm scp "${bundle}" "${NAME}:run.tar.gz" "${place[@]}" --worker=all &&
    run "${tpu[@]}" tpu-vm scp "${keep}" "${NAME}:keep.sh" "${place[@]}" --worker=all &&
    on_hosts all 'mkdir -p run && tar -xzf run.tar.gz -C run && { nohup bash keep.sh >> run/log 2>&1 < /dev/null & }'
}

# Until every host has ended. A connection that drops is made again; gone machines are an error.
watch() {
  local codes
  echo "# its log: ${tpu[*]} tpu-vm ssh ${NAME} ${place[*]} --worker=0 --command='tail -f run/log'"
  [[ "${DRY_RUN}" == 1 ]] && return
  until codes="$("${tpu[@]}" tpu-vm ssh "${NAME}" "${place[@]}" --worker=all '--command=cat run/ended' 2> /dev/null)"; do
    [[ "$(state)" == ACTIVE ]] || return 1
    sleep 60
  done
  [[ "$(sort -u <<< "${codes}")" == 0 ]] && return
  on_hosts 0 'tail -n 50 run/log' || true
  give_back
  fail "the run ended with exit code $(sort -n <<< "${codes}" | tail -n 1), see above; mend it and run this line again"
}

give_back() {
  run "${tpu[@]}" queued-resources delete "${NAME}" "${place[@]}" --force --quiet
}

for ((try = 1; try <= TRIES; try++)); do
  ask
  if wait_until_active && begin && watch; then
    give_back
    exit 0
  fi
  sleep 60 # until it is known whether the machines are gone
  if [[ "$(state)" == ACTIVE ]]; then
    give_back
    fail "the run could not be started on machines that are there, see above; mend it and run this line again"
  fi
  echo "# try ${try} of ${TRIES}: the machines are gone; what is saved goes on with others" >&2
  give_back
done
fail "the run did not end within ${TRIES} tries; what is saved in its --workdir is whole"
