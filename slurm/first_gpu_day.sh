#!/usr/bin/env bash
# The first half hour with a GPU: does everything run there, how fast, and does a killed run end in the same numbers?
#
#   bash slurm/first_gpu_day.sh out=first_gpu_day                              # about 30 minutes on one GPU
#   bash slurm/first_gpu_day.sh out=/tmp/rehearsal device=cpu preset=smoke dataset=digits speed=quick=true
#
# Leaves in the folder: a log a step, steps.tsv (step, exit code, seconds), speed.json, and records with a report. A step
# that fails stops no other one; the exit code is 1 if any failed. PYTHON chooses the interpreter.
set -u
cd "$(dirname "$0")/.."

out=first_gpu_day device=cuda preset=small dataset=cifar10 speed=rounds=3
for argument in "$@"; do
    case $argument in
        out=* | device=* | preset=* | dataset=* | speed=*) declare "${argument%%=*}=${argument#*=}" ;;
        *) echo "$argument: expected out=, device=, preset=, dataset= or speed=" >&2; exit 2 ;;
    esac
done
mkdir -p "$out"
out=$(cd "$out" && pwd)
export VQ_PRIOR_BENCH_CACHE=${VQ_PRIOR_BENCH_CACHE:-$out/cache}
python=${PYTHON:-$([ -x .venv/bin/python ] && echo .venv/bin/python || echo python3)}
failed=0

step() {   # name, command...
    local name=$1 began code
    shift
    began=$(date +%s)
    echo "== $name: $*"
    "$@" > "$out/$name.log" 2>&1
    code=$?
    printf '%s\t%s\t%s\n' "$name" "$code" "$(($(date +%s) - began))" | tee -a "$out/steps.tsv"
    [ $code -eq 0 ] || { failed=1; tail -n 5 "$out/$name.log"; }
}

run=("$python" -m bench.run "preset=$preset" "dataset=$dataset" "device=$device")
killed() {   # a run in a cache of its own, killed after a while, then begun again; ends well or not at all
    local seconds=$1
    shift
    setsid "$@" & local leader=$!
    sleep "$seconds"
    kill -KILL -- "-$leader" 2>/dev/null
    wait "$leader" 2>/dev/null
    "$@"
}
same() {   # measurements of two result folders, times apart
    "$python" - "$1" "$2" <<'END'
import sys
import bench
timed = ("second", "speed", "per_hour")
numbers = [{(row.label, row.metric): row.value for row in bench.load(folder).itertuples()
            if row.metric and not any(word in row.metric for word in timed)} for folder in sys.argv[1:]]
shared = set(numbers[0]) & set(numbers[1])
far = [key for key in shared if abs((numbers[0][key] or 0) - (numbers[1][key] or 0)) > 1e-6 * abs(numbers[0][key] or 1)]
print(f"{len(shared)} numbers of both, {len(far)} differ", *far[:5], sep="\n")
sys.exit(bool(far) or not shared)
END
}

rm -f "$out/steps.tsv"
step doctor "$python" -m bench.doctor "preset=$preset" "dataset=$dataset" "device=$device" fetch=true
step smoke "$python" -m bench.run preset=smoke dataset=digits prior=absorbing,autoregressive "device=$device" \
    "results_dir=$out/smoke"
step speed "$python" -m bench.speed "device=$device" "$speed" "out=$out/speed.json"
step undisturbed "${run[@]}" prior=absorbing,autoregressive sampler.steps=16,64 "results_dir=$out/results"
seconds=$(awk -F'\t' '$1 == "undisturbed" { print int($3 / 3) + 5 }' "$out/steps.tsv")
VQ_PRIOR_BENCH_CACHE=$out/cache-killed step killed killed "$seconds" "${run[@]}" prior=absorbing sampler.steps=16 \
    "results_dir=$out/results-killed"
step same same "$out/results" "$out/results-killed"
step report "$python" -m bench.report "results_dir=$out/results" "out=$out/report"
echo "steps: $out/steps.tsv; records: $out/results; page: $out/report/index.html"
exit $failed
