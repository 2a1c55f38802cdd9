#!/usr/bin/env bash
# Stop the SLURM that slurm/up.sh started in DIR: its jobs first, then its daemons, each by the pid in DIR/run.
#
#   slurm/down.sh DIR           DIR itself (logs, database) stays; exit 1 if a daemon would not stop
set -uo pipefail
(( $# == 1 )) || { sed -n '2,4s/^# \{0,1\}//p' "$0" >&2; exit 2; }
dir=$(realpath -m "$1"); export SLURM_CONF=$dir/etc/slurm.conf

running() {                                      # the pids of ours, in the order given, that are alive
  local name file pid
  for name in "$@"; do
    for file in "$dir"/run/$name.pid; do
      pid=$(cat "$file" 2>/dev/null) && [[ -n $pid ]] && kill -0 "$pid" 2>/dev/null && echo "$pid"
    done
  done
}
stop() {                                         # stop SECONDS NAME...
  local until=$(( SECONDS + $1 )); shift
  local pids; pids=$(running "$@")
  [[ -z $pids ]] || kill $pids 2>/dev/null
  while [[ -n $(running "$@") ]]; do
    (( SECONDS < until )) || { kill -9 $(running "$@") 2>/dev/null; sleep 0.2; break; }
    sleep 0.05
  done
}
if [[ -n $(running slurmctld) ]]; then
  timeout 5 scancel --user=root 2>/dev/null
  for _ in $(seq 80); do [[ -z $(timeout 5 squeue --noheader 2>/dev/null) ]] && break; sleep 0.1; done
fi
stop 10 'slurmd-*' slurmctld
stop 10 slurmdbd
stop 10 mariadbd munged
[[ -z $(running '*') ]] || { echo "slurm/down.sh: still alive: $(running '*' | tr '\n' ' ')" >&2; exit 1; }
