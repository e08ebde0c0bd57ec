#!/bin/sh
# Attention kernels on the GPU of this machine: builds, checks, times; one short table last that says
# of each demand what was wanted and seen. About 7 minutes on an H100 or H200 with 16 cores.
# Usage: kernels.sh [OUT_FOLDER [SECONDS]]   (SECONDS: for everything, 540 unless given)
#   BENCH_KERNELS=FILE  an executable that was built elsewhere, instead of building here: by the two
#                       cmake lines below; it needs only libc (2.34 or newer), libstdc++, libgomp and the driver
#   SANITIZE=0          without compute-sanitizer
# Each part has a time limit of its own. What runs over is cut, and the table says so.
# Needs a CUDA toolkit (unless BENCH_KERNELS is given) and CMake; no libav. cuDNN is
# found in the loader's path or in the python3 that holds PyTorch.
# OUT_FOLDER: summary.txt musts.csv growth.csv extras.txt clocks.csv logs.tar.gz
set -eu
root=$(cd "$(dirname "$0")/../.." && pwd)
out=${1:-/tmp/ditgen-kernels}
total=${2:-540}
began=$(date +%s)
mkdir -p "$out"
logs=$(mktemp -d)
failed=0
for f in summary.txt musts.csv growth.csv extras.txt clocks.csv logs.tar.gz; do # an earlier run's
    rm -f "$out/$f"
done
: >"$logs/parts"
left() { echo $((total - $(date +%s) + began)); }
# part NAME LIMIT COMMAND...: output to $logs/NAME; $logs/NAME.end is ok, cut, failed or "left out"
part() {
    name=$1 limit=$2
    shift 2
    [ "$limit" -le "$(left)" ] || limit=$(left)
    if [ "$limit" -lt 5 ]; then
        echo "left out" >"$logs/$name.end"
        return 0
    fi
    start=$(date +%s) rc=0
    timeout -k 5 "$limit" "$@" >"$logs/$name" 2>&1 || rc=$?
    case $rc in
    0) end=ok ;;
    124 | 137) end="cut after $limit s" ;;
    *) end="failed ($rc)" ;;
    esac
    echo "$end" >"$logs/$name.end"
    echo "$name: $(($(date +%s) - start)) s, $end" >>"$logs/parts"
}
finish() {
    tar -C "$logs" -czf "$out/logs.tar.gz" .
    rm -r "$logs"
}
trap finish EXIT

card=${CUDA_VISIBLE_DEVICES:-0} # a machine may have others, which do other work
card=${card%%,*}
nvidia-smi -i "$card" --query-gpu=name,driver_version,clocks.sm,clocks.mem,power.draw,power.limit,temperature.gpu,utilization.gpu --format=csv,noheader
bench=${BENCH_KERNELS:-}
if [ -z "$bench" ]; then
    build=${BUILD:-/tmp/ditgen-kernels-build}
    part configure 60 cmake -S "$root" -B "$build" -DDITGEN_CUDA=ON -DDITGEN_LIBAV=OFF \
        -DDITGEN_ONEDNN=OFF
    part build 200 cmake --build "$build" -j --target bench_kernels
    bench=$build/tests/bench/kernels/bench_kernels
    [ "$(cat "$logs/build.end")" = ok ] || { tail -n 20 "$logs/configure" "$logs/build"; exit 1; }
fi
cudnn=$(python3 -c 'import nvidia.cudnn, os; print(os.path.join(list(nvidia.cudnn.__path__)[0], "lib"))' 2>/dev/null || true)
[ -n "$cudnn" ] && LD_LIBRARY_PATH=$cudnn${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH} && export LD_LIBRARY_PATH

# Nothing is timed here, so all run at once. Problems of two seeds reach every instance between them.
checks="repeats problems"
part repeats 170 "$bench" check 20 1000 1 &
part problems 170 "$bench" check 100 1 7 &
if [ "${SANITIZE:-1}" = 1 ]; then
    for tool in memcheck racecheck initcheck synccheck; do
        for seed in 129 279; do
            checks="$checks $tool-$seed"
            part $tool-$seed 170 compute-sanitizer --tool $tool --error-exitcode 9 "$bench" check 14 1 $seed &
        done
    done
fi
wait
grep -h '\.c:[0-9]*: ' "$logs"/* | head -n 20 | cut -c 1-240 || true

nvidia-smi -i "$card" --query-gpu=timestamp,clocks.sm,power.draw,temperature.gpu,clocks_event_reasons.active --format=csv,noheader -lms 250 >"$out/clocks.csv" &
log=$!
part musts 160 "$bench" musts 100 "$out"
part growth 120 "$bench" time 24 "$out"
part extras 45 "$bench" extras
kill $log
# every instance once, with reasons of stalls and use of pipes; for reading when a demand is missed
part profile 60 ncu --clock-control none --print-details all --section SpeedOfLight --section ComputeWorkloadAnalysis \
    --section SchedulerStats --section WarpStateStats -k attention -c 24 "$bench" once 8192
cp "$logs/extras" "$out/extras.txt" 2>/dev/null || true
cat "$logs/musts" "$logs/growth" "$logs/extras" 2>/dev/null || true

line() { printf '%-34s %-16s %-44s %s\n' "$@"; }
summary() {
    line what wanted seen verdict
    for c in $checks; do
        seen=$(grep -v '^=* *$' "$logs/$c" 2>/dev/null | tail -n 1 | sed 's/^=* *//' | cut -c 1-44 || true)
        end=$(cat "$logs/$c.end")
        [ "$end" = ok ] && verdict=met || verdict="NOT PROVEN: $end"
        line "$c" "0 failed" "$seen" "$verdict"
    done
    [ ! -f "$out/musts.csv" ] || awk -F, 'NR > 1 && $6 == "default" {
        printf "%-34s %-16s %-44s %s\n", $1 " x " $3 " " $4, $7,
            sprintf("medians %.3f, tenths %.3f, by rounds %.3f", $8, $9, $10), $18 }' "$out/musts.csv"
    n=$(cat "$out/musts.csv" 2>/dev/null | grep -c ,default, || true) # 4 sizes: dense, and two densities
    [ "$n" = 12 ] && verdict=$(cat "$logs/musts.end") || verdict="NOT ALL: $(cat "$logs/musts.end")"
    line "demands timed" 12 "$n" "$verdict"
    for p in growth extras; do
        line "$p" "all of it" "$(tail -n 1 "$logs/$p" 2>/dev/null | cut -c 1-44)" "$(cat "$logs/$p.end")"
    done
    awk '/ ragged / { n = $2; sub(/.*x/, "", n)
        printf("%-34s %-16s %-44s %s\n", "ragged, " n " channels (design)", ".75", "r " $NF,
            ($NF >= .75 ? "met" : "MISSED")) }' "$logs/extras" 2>/dev/null || true
    echo "SM clock above 500 W, MHz: $(awk -F, '$3 + 0 > 500 {print $2 + 0}' "$out/clocks.csv" | sort -n |
        awk '{a[NR]=$1} END {print "median " a[int((NR+1)/2)] ", least " a[1] ", most " a[NR]}')"
    echo "parts: $(tr '\n' ';' <"$logs/parts")"
    echo "all of it: $(($(date +%s) - began)) s"
}
summary | tee "$out/summary.txt"
for c in $checks musts growth extras; do
    [ "$(cat "$logs/$c.end")" = ok ] || failed=1
done
exit $failed
