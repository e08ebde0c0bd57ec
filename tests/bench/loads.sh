#!/bin/sh
# One thread against two, on two cores that others want as well: medians of 5 runs, by turns.
#
# Usage: loads.sh DITGEN [CORES [BUSY...]]   CORES: two of them (0,1), as taskset takes them; BUSY: numbers
# of loops that run on the same two cores (0 1 2 4 6 8). Wanted: -t 2 at most 1.3 times -t 1 in every
# row; exit 1 where it is more. The cores must have nothing else to do.
set -eu
[ $# -ge 1 ] || { echo "usage: loads.sh DITGEN [CORES [BUSY...]]" >&2; exit 2; }
export DITGEN_DEVICE=cpu
ditgen=$1 cores=${2:-0,1} missed=0
[ $# -gt 2 ] && shift 2 || set -- 0 1 2 4 6 8
work=$(mktemp -d)
busy=
quiet() {
    [ -z "$busy" ] || kill $busy
    busy=
}
trap 'quiet; rm -rf "$work"' EXIT
trap 'exit 130' INT TERM

# ms THREADS settings...
ms() {
    t=$1
    shift
    begin=$(date +%s%N)
    taskset -c "$cores" "$ditgen" x -s 1 -q -y -t "$t" "$@" -o "$work/o.y4m" </dev/null
    echo $((($(date +%s%N) - begin) / 1000000)) >>"$work/$t"
}
median() { sort -n "$1" | sed -n 3p; }

for n; do
    i=0
    while [ $i -lt "$n" ]; do
        taskset -c "$cores" sh -c 'while :; do :; done' &
        busy="$busy $!" i=$((i + 1))
    done
    for clip in "--size 32x32 --frames 1" "--size 64x64 --frames 5" "--size 128x128 --frames 9"; do
        rm -f "$work/1" "$work/2"
        for _ in 1 2 3 4 5; do
            ms 1 $clip --steps 4
            ms 2 $clip --steps 4
        done
        one=$(median "$work/1") two=$(median "$work/2") word=
        [ $((two * 10)) -le $((one * 13)) ] || { word="  MISSED" missed=1; }
        echo "$n busy, $clip: -t 1 $one ms, -t 2 $two ms, $(awk "BEGIN { printf \"%.2f\", $two / $one }")$word"
    done
    quiet
    wait
done
exit $missed
