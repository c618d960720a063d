#!/usr/bin/env bash
# A run on GKE as a JobSet, through XPK: builds and pushes an image of this checkout, and submits the workload. GKE
# starts it again after every preemption.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

usage() {
  cat << 'EOF'
launch/pods/gke_xpk.sh --name=run1 --project=P --zone=us-west4-a --cluster=C --image=REGISTRY/chestx_jax:run1 \
    --type=v5litepod-64 [flags] -- PROGRAM FLAGS

  --name       of the workload
  --project, --zone, --cluster
  --image      what to build and push
  --type       of the TPU slices: v5litepod-64 is launch.plan's v5e:8x8
  --slices     of that type (default: 1); set --config.mesh.replica to as many
  --restarts   after preemptions (default: 20)
  --create     1 to make a cluster of spot machines first and end there, so that storage can be attached (default: 0)
  --dry_run    print what would be done; needs no xpk, docker or gcloud

PROGRAM FLAGS is the line to run; its --workdir and data lie on a volume that the cluster mounts (xpk storage attach):
  launch.sft --config=configs/sft.py:qwen2_vl_7b --workdir=/mnt/shared/run1
EOF
}

FLAGS=(name project zone cluster image type slices restarts create)
SLICES=1
RESTARTS=20
CREATE=0
NAME="" PROJECT="" ZONE="" CLUSTER="" IMAGE="" TYPE=""
parse_flags "$@"
for flag in NAME PROJECT ZONE CLUSTER IMAGE TYPE; do
  [[ -n "${!flag}" ]] || fail "--${flag,,} is missing"
done
check_name "${NAME}"
one_of --create "${CREATE}" 0 1
needs docker "https://docs.docker.com/engine/install"
needs xpk "pip install xpk"

repository="$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)"
where=("--cluster=${CLUSTER}" "--project=${PROJECT}" "--zone=${ZONE}")
printf -v line '%q ' "${PROGRAM[@]}"

if [[ "${CREATE}" == 1 ]]; then
  run xpk cluster create "${where[@]}" "--tpu-type=${TYPE}" "--num-slices=${SLICES}" --spot
  echo "# now attach storage (xpk storage attach), then run this line without --create"
  exit 0
fi
run docker build -f "${repository}/launch/pods/Dockerfile" -t "${IMAGE}" "${repository}"
run docker push "${IMAGE}"
# 75: a process was lost, or the run was told to stop and is saved. XPK restarts on 127 to 255 by itself, so also on 134,
# with which the others end when the first process is lost
run xpk workload create "--workload=${NAME}" "${where[@]}" "--tpu-type=${TYPE}" "--num-slices=${SLICES}" \
  "--docker-image=${IMAGE}" "--max-restarts=${RESTARTS}" --restart-on-exit-codes=75 \
  --termination-grace-period-seconds=300 "--command=python -m ${line}"
echo "# its state: xpk workload list ${where[*]}"
echo "# its log:   kubectl logs -f -l jobset.sigs.k8s.io/jobset-name=${NAME},batch.kubernetes.io/job-completion-index=0"
echo "# to end it: xpk workload delete --workload=${NAME} ${where[*]}"
