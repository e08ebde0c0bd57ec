#!/bin/sh
# What plans and residuals cost on this processor, beside what is wanted of them: a table of every
# attention kernel that runs here, tiles of 64 and 128, 64 and 128 channels, 8,192 tokens.
#
#   eta       time of dense * density / time, of pairs that alternate: .90 wanted at .3, .85 at .1
#   residual  a call that makes one over a dense call: at most 1.06
#
# Each kernel and number of channels is a process of one thread on a core of its own, as many at a time
# as JOBS says; two hyperthreads of a core count as one.
# Usage: plans.sh build/tests/bench/bench_attention [KERNEL...]
# Environment: SECONDS_EACH (4) of a row, JOBS (all cores but one), HEADS (2); exit 1 if something is missed
set -eu
[ $# -ge 1 ] || { echo "usage: plans.sh BENCH_ATTENTION [KERNEL...]" >&2; exit 2; }
bench=$1
shift
[ $# -gt 0 ] || set -- avx2 avx512 avx512bf16 amx
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT TERM

# the first logical processor of each core that this process may run on
allowed=$(taskset -cp $$ | sed 's/.*: //' | tr ',' '\n' | awk -F- '{ for (i = $1; i <= (NF > 1 ? $2 : $1); i++) print i }')
cores=
for c in $allowed; do
    first=$(sed 's/[,-].*//' "/sys/devices/system/cpu/cpu$c/topology/thread_siblings_list" 2>/dev/null || echo "$c")
    case " $cores " in *" $first "*) ;; *) echo "$allowed" | grep -qx "$first" && cores="$cores $first" || cores="$cores $c" ;; esac
done
n=$(echo $cores | wc -w)
jobs=${JOBS:-$((n > 1 ? n - 1 : 1))}
[ "$jobs" -le "$n" ] || jobs=$n
busy=0
set -- $(for k in "$@"; do echo "$k:64 $k:128"; done)
for what in "$@"; do
    core=$(echo $cores | cut -d ' ' -f $((busy % jobs + 1)))
    taskset -c "$core" "$bench" --kernel "${what%:*}" --dim "${what#*:}" --len 8192 --heads "${HEADS:-2}" \
        --threads 1 --seconds "${SECONDS_EACH:-4}" >"$work/$what" 2>&1 &
    busy=$((busy + 1))
    [ $((busy % jobs)) != 0 ] || wait
done
wait
head -n 1 "$work/$1"
echo "| kernel, channels | dense, GFLOP/s | of peak | tiles | .3 | .1 | band .1 | residual |"
echo "| --- | --- | --- | --- | --- | --- | --- | --- |"
for what in "$@"; do
    awk -v name="${what%:*}, ${what#*:}" '
        /skipped/ { print "| " name " | " $0 " | | | | | | |"; exit }
        / dense / { rate = $(NF - 1); match($0, /, [.0-9]+ of/); share = substr($0, RSTART + 2, RLENGTH - 5) }
        function mark(x, bad) { return bad ? x " missed" : x }
        / random / { tile = $9 + 0; e = $NF; first[tile]++
            if (first[tile] == 1) a = mark(e, e < .9); else b = mark(e, e < .85) }
        / band / { band = $NF }
        / residual / { r = $(NF - 2)
            print "| " name " | " rate " | " share " | " tile " | " a " | " b " | " band " | " mark(r, r > 1.06) " |" }' "$work/$what"
done >"$work/table"
cat "$work/table"
! grep -q missed "$work/table"
