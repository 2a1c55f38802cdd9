#!/usr/bin/env bash
# Bring up a real SLURM on this one Debian host, as root, without systemd: a controller, NODES node daemons, accounting.
#
#   slurm/up.sh DIR [NODES=2] [CPUS=4]           ACCOUNTING=0 leaves out the database (and with it sacct)
#   export SLURM_CONF=DIR/etc/slurm.conf         sinfo, sbatch, squeue, sacct ... now speak to it
#   slurm/down.sh DIR                            stops what this script started, by pid file
#
# DIR holds everything: configuration, key, database, state, logs, pid files. Ports are free ones, chosen here.
# Partitions: main (default; jobs are requeued when a job of `high` needs the node) and high. Two pretended GPUs a node.
set -euo pipefail

(( $# >= 1 )) || { sed -n '2,9s/^# \{0,1\}//p' "$0" >&2; exit 2; }
dir=$(realpath -m "$1"); nodes=${2:-2}; cpus=${3:-4}; accounting=${ACCOUNTING:-1}; host=$(hostname -s)

need() {
  local missing=()
  for program in "$@"; do command -v "$program" >/dev/null || missing+=("$program"); done
  (( ${#missing[@]} == 0 )) && return
  echo "slurm/up.sh: not installed: ${missing[*]}. As root: apt-get update && apt-get install -y --no-install-recommends" \
       "slurm-wlm munge slurmdbd mariadb-server slurm-wlm-mysql-plugin" >&2
  exit 3
}
fail() { echo "slurm/up.sh: $1; the logs are in $dir/log" >&2; "$(dirname "$0")/down.sh" "$dir" || true; exit 1; }
wait_for() {                                     # wait_for SECONDS WHAT COMMAND...
  local until=$(( SECONDS + $1 )) what=$2; shift 2
  until "$@" >/dev/null 2>&1; do
    (( SECONDS < until )) || fail "$what did not come up"
    sleep 0.1
  done
}
free_ports() {                                   # the first of $1 consecutive ports on which nobody listens
  local first port
  for _ in $(seq 100); do
    first=$(( 20000 + RANDOM % 12000 ))
    for port in $(seq "$first" $(( first + $1 - 1 ))); do
      (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null && continue 2
    done
    echo "$first"; return
  done
  return 1
}

[[ $(id -u) == 0 ]] || { echo "slurm/up.sh: must be root (uid 0), this is uid $(id -u)" >&2; exit 3; }
need munged slurmctld slurmd sbatch
(( accounting == 0 )) || need slurmdbd mariadbd mariadb-install-db
for pid in "$dir"/run/*.pid; do
  [[ -s $pid ]] && kill -0 "$(cat "$pid")" 2>/dev/null && { echo "slurm/up.sh: $dir is in use; slurm/down.sh $dir first" >&2; exit 3; }
done
umask 022
rm -rf "$dir/state" "$dir/run"                   # job ids and jobs of an earlier life are not taken over
mkdir -p "$dir"/{etc,log,state,run,munge,dev}
chmod 755 "$dir" "$dir/run"; chmod 711 "$dir/munge"
for i in $(seq "$nodes"); do mkdir -p "$dir/spool/n$i"; done
first_port=$(free_ports $(( nodes + 2 )))

# Authentication: a private munge.
[[ -s $dir/munge/key ]] || (umask 077; head -c 128 /dev/urandom > "$dir/munge/key")
rm -f "$dir"/munge/sock*
munged --force --num-threads=2 --key-file="$dir/munge/key" --socket="$dir/munge/sock" --seed-file="$dir/munge/seed" \
       --pid-file="$dir/run/munged.pid" --log-file="$dir/log/munged.log"

# Accounting: a private MariaDB that listens on a socket only, and slurmdbd in front of it.
accounting_lines="AccountingStorageType=accounting_storage/none"
if (( accounting )); then
  db=$dir/db; mkdir -p "$db"
  [[ -d $db/data/mysql ]] || mariadb-install-db --no-defaults --user=root --datadir="$db/data" --skip-test-db \
      --auth-root-authentication-method=normal > "$dir/log/mariadb-install.log" 2>&1 || fail "the database"
  setsid mariadbd --no-defaults --user=root --datadir="$db/data" --socket="$db/sock" --pid-file="$dir/run/mariadbd.pid" \
      --skip-networking --innodb-buffer-pool-size=64M --innodb-lock-wait-timeout=900 --innodb-flush-log-at-trx-commit=0 \
      --log-error="$dir/log/mariadbd.log" </dev/null >/dev/null 2>&1 &
  wait_for 120 "the database" mariadb-admin --no-defaults --socket="$db/sock" ping
  cat > "$dir/etc/slurmdbd.conf" <<CONF
AuthType=auth/munge
AuthInfo=socket=$dir/munge/sock
DbdHost=localhost
DbdPort=$(( first_port + 1 ))
SlurmUser=root
LogFile=$dir/log/slurmdbd.log
PidFile=$dir/run/slurmdbd.pid
StorageType=accounting_storage/mysql
StorageHost=localhost
StorageUser=root
StorageLoc=slurm_accounting
CONF
  chmod 600 "$dir/etc/slurmdbd.conf"             # slurmdbd refuses a readable one
  accounting_lines="AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=localhost
AccountingStoragePort=$(( first_port + 1 ))
AccountingStoragePass=$dir/munge/sock
AccountingStorageTRES=gres/gpu"                  # Pass names the munge socket: without it clients hang
fi

# A pretended GPU is a character device (slurmd refuses regular files) that behaves like /dev/null.
for i in 0 1; do [[ -c $dir/dev/nvidia$i ]] || mknod "$dir/dev/nvidia$i" c 1 3; done
echo "NodeName=n[1-$nodes] Name=gpu Flags=nvidia_gpu_env File=$dir/dev/nvidia[0-1]" > "$dir/etc/gres.conf"

# CPUs and memory are what is claimed here, not what the host has (config_overrides): several nodes share it.
cat > "$dir/etc/slurm.conf" <<CONF
ClusterName=bench
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=$first_port
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket=$dir/munge/sock
CredType=cred/munge
StateSaveLocation=$dir/state
SlurmdSpoolDir=$dir/spool/%n
SlurmctldPidFile=$dir/run/slurmctld.pid
SlurmdPidFile=$dir/run/slurmd-%n.pid
SlurmctldLogFile=$dir/log/slurmctld.log
SlurmdLogFile=$dir/log/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
MpiDefault=none
$accounting_lines
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,sched_interval=2,bf_interval=2,requeue_setup_env_fail
PriorityType=priority/basic
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SlurmctldParameters=preempt_send_user_signal
SlurmdParameters=config_overrides
JobRequeue=1
ReturnToService=2
KillWait=5
MinJobAge=300
OverTimeLimit=0
SlurmctldTimeout=30
SlurmdTimeout=30
InactiveLimit=0
GresTypes=gpu
NodeName=n[1-$nodes] NodeHostname=$host NodeAddr=127.0.0.1 Port=[$(( first_port + 2 ))-$(( first_port + nodes + 1 ))] CPUs=$cpus RealMemory=16000 Gres=gpu:2 State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP PriorityTier=1 PreemptMode=REQUEUE GraceTime=10
PartitionName=high Nodes=ALL Default=NO MaxTime=INFINITE State=UP PriorityTier=10 PreemptMode=OFF
CONF
export SLURM_CONF=$dir/etc/slurm.conf

if (( accounting )); then
  MYSQL_UNIX_PORT="$dir/db/sock" slurmdbd
  wait_for 120 "slurmdbd" sacctmgr --noheader show cluster
  sacctmgr --immediate add cluster bench >/dev/null 2>&1 || true      # there already when DIR is used again
fi
slurmctld -f "$SLURM_CONF"
wait_for 120 "slurmctld" scontrol ping
registered() { [[ $(sacctmgr --noheader --parsable2 show cluster bench format=ControlPort) == "$first_port" ]]; }
(( accounting == 0 )) || wait_for 120 "accounting of this controller" registered
for i in $(seq "$nodes"); do slurmd -f "$SLURM_CONF" -N "n$i"; done
all_idle() { [[ $(sinfo --noheader --Node --partition=main --states=idle --format=%N | wc -l) == "$nodes" ]]; }
wait_for 120 "not every node" all_idle
sinfo --Node --partition=main --format='%N %T %c CPUs %G'
echo "export SLURM_CONF=$SLURM_CONF"
