#!/usr/bin/env bash
# A run on GPUs under SLURM: writes a batch script, one process a GPU, and submits it. The job puts itself in the queue
# again when a process was lost or the machines are taken away.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

usage() {
  cat << 'EOF'
launch/pods/slurm_gpu.sh --name=run1 --nodes=4 [flags] -- PROGRAM FLAGS

  --name       of the job; its log is NAME-JOBID.log
  --nodes
  --gpus       of a node (default: 8)
  --cpus       of a GPU (default: 8)
  --time       limit of one life of the run (default: 24:00:00); SIGTERM comes five minutes earlier
  --partition  (default: the cluster's)
  --venv       where the package is installed with its gpu extra, on a disk that all nodes see (default: .venv of this
               checkout)
  --dry_run    print what would be done; needs no SLURM

PROGRAM FLAGS is the line to run, e.g. launch.grpo --config=configs/grpo.py:qwen2_vl_7b --workdir=/shared/run1
EOF
}

repository="$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)"
FLAGS=(name nodes gpus cpus time partition venv)
NAME="" NODES="" PARTITION=""
GPUS=8
CPUS=8
TIME=24:00:00
VENV="${repository}/.venv"
parse_flags "$@"
for flag in NAME NODES; do
  [[ -n "${!flag}" ]] || fail "--${flag,,} is missing"
done
check_name "${NAME}"
needs sbatch "this script belongs on a login node of a SLURM cluster"
[[ "${DRY_RUN}" == 1 || -x "${VENV}/bin/python" ]] \
  || fail "--venv: ${VENV} has no bin/python; python3 -m venv ${VENV}, then ${VENV}/bin/pip install -e '.[gpu]'"
printf -v line '%q ' "${PROGRAM[@]}"
queue="${PARTITION:+#SBATCH --partition=${PARTITION}$'\n'}"

show "${NAME}.sbatch" "#!/usr/bin/env bash
#SBATCH --job-name=${NAME}
#SBATCH --nodes=${NODES}
#SBATCH --ntasks-per-node=${GPUS}
#SBATCH --gpus-per-node=${GPUS}
#SBATCH --cpus-per-task=${CPUS}
#SBATCH --time=${TIME}
${queue}#SBATCH --signal=TERM@300
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=${NAME}-%j.log
set -uo pipefail
cd ${repository@Q} || exit 1
# one process is lost: all are ended, and the job goes back into the queue
srun --cpus-per-task=${CPUS} --kill-on-bad-exit=1 ${VENV@Q}/bin/python -m ${line}
code=\$?
# 75: saved and stopped, or a process was lost; 134: the first one was; 137 and 143: what srun ends the others with.
# All else waits for a person
if [[ \${code} =~ ^(75|134|137|143)\$ && \${SLURM_RESTART_COUNT:-0} -lt 100 ]]; then
  scontrol requeue \"\${SLURM_JOB_ID}\"
fi
exit \"\${code}\""
run sbatch "${NAME}.sbatch"
