#!/bin/sh
# Everything that a system may refuse, refused in turn, by hand: minutes to an hour.
#
# Usage: sh tests/torture.sh [BUILD] [STEP]   BUILD: build folder (build); STEP: every STEPth allocation
# only (default 1: every one; files and threads are few, and all are tried). Wanted of each run: the clip, or one line and an exit code of 2 to 6; no
# crash, no hang (60 s), nothing left behind but a state. Figures go to standard output, for the
# reliability table of the README.
set -eu
export DITGEN_DEVICE="${DITGEN_DEVICE:-cpu}"
top=$(cd "$(dirname "$0")/.." && pwd)
build=$(cd "${1:-$top/build}" && pwd)
step=${2:-1}
ditgen=$build/app/ditgen
[ -x "$ditgen" ] || { echo "torture: no $ditgen; build first" >&2; exit 4; }
T=$(mktemp -d)
trap 'rm -rf "$T"' EXIT
cc -shared -fPIC -O1 -D_GNU_SOURCE "$top/tests/torture_shim.c" -o "$T/shim.so" -ldl
cd "$T"
bad=0
tiny="x --size 32x32 --frames 1 --steps 1 -t 1 -s 1 -q"
"$ditgen" $tiny -o ref.y4m

# verdict NAME CODE: of the run whose standard error is in .err, in the folder w
verdict() {
    lines=$(grep -c . .err || true)
    case $2 in
    0) [ ! -e w/o.y4m ] || cmp -s ref.y4m w/o.y4m || { echo "BAD $1: other bytes"; bad=$((bad + 1)); } ;;
    2 | 3 | 4 | 5 | 6) [ "$lines" -ge 1 ] || { echo "BAD $1: code $2 and no word"; bad=$((bad + 1)); } ;;
    *) echo "BAD $1: code $2: $(head -c 300 .err)"; bad=$((bad + 1)) ;;
    esac
    left=$(find w -name '*.part' | head -1)
    [ -z "$left" ] || { echo "BAD $1: left $left"; bad=$((bad + 1)); }
    rm -rf w
}
# each KIND LONG args...: every STEPth call of the kind fails
each() {
    kind=$1 long=$2
    shift 2
    mkdir -p w
    FAIL_KIND=$kind FAIL_COUNT="$T/count" LD_PRELOAD="$T/shim.so" "$ditgen" "$@" >/dev/null 2>.err || true
    rm -rf w
    n=$(cat count) i=1 runs=0 ended=0 before=$bad
    while [ "$i" -le "$n" ]; do
        mkdir -p w
        code=0
        FAIL_KIND=$kind FAIL_AT=$i FAIL_LONG=$long LD_PRELOAD="$T/shim.so" timeout 60 "$ditgen" "$@" >/dev/null 2>.err </dev/null || code=$?
        verdict "$kind $i of $n ($*)" $code
        [ $code = 0 ] || ended=$((ended + 1))
        runs=$((runs + 1))
        if [ $kind = malloc ] || [ $kind = library ]; then i=$((i + step)); else i=$((i + 1)); fi
    done
    echo "$kind$([ "$long" = 1 ] && echo ' and all later') fails, $*: $runs of $n places, $ended runs ended with a message, $((bad - before)) wrong"
}
each malloc 0 $tiny -o w/o.y4m
each malloc 1 $tiny -o w/o.y4m
each malloc 0 x --plan --size 32x32 --frames 1 -t 1
# what libraries ask for: oneDNN 2.6's code generator does not look at what it gets
each library 0 $tiny -o w/o.y4m
each library 1 $tiny -o w/o.y4m
each open 0 $tiny -o w/o.y4m --save-latents w/l --dump-config w/c
each open 1 $tiny -o w/o.y4m --save-latents w/l
each thread 0 x --size 32x32 --frames 1 --steps 1 -s 1 -q -o w/o.y4m

# few descriptors; files that may not grow
runs=0 before=$bad
for n in 4 5 6 7 8 9 10 12 16; do # 3: the loader ends it
    mkdir w
    code=0
    (ulimit -n $n; exec "$ditgen" $tiny -o w/o.y4m) 2>.err </dev/null || code=$?
    verdict "ulimit -n $n" $code
    runs=$((runs + 1))
done
echo "ulimit -n 4 to 16: $runs runs, $((bad - before)) wrong"
runs=0 before=$bad
for n in 1 2 3 4 8; do # 0: nor can its words be kept
    for out in o.y4m f/ o.mp4; do
        mkdir w
        code=0
        (ulimit -f $n; exec "$ditgen" $tiny -o w/$out --save-latents w/l) 2>.err </dev/null || code=$?
        verdict "ulimit -f $n, $out" $code
        runs=$((runs + 1))
    done
done
echo "ulimit -f 1 to 8: $runs runs, $((bad - before)) wrong"

if command -v valgrind >/dev/null && ! grep -q "DITGEN_SANITIZE:BOOL=ON" "$build/CMakeCache.txt"; then
    before=$bad
    for a in "$tiny -o v.y4m" "x --plan --size 32x32 --frames 1 -t 1" "inspect" "compare ref.y4m ref.y4m"; do
        code=0
        OMP_NUM_THREADS=1 valgrind -q --error-exitcode=99 --leak-check=full --errors-for-leak-kinds=definite "$ditgen" $a >/dev/null 2>.err || code=$?
        # oneDNN's generated code, which has no name (???), reads 32 bytes behind blocks of its own
        named=$(awk '/== (Invalid|Use of|Conditional|Mismatched|Source and|[0-9,]+ .*definitely lost)/ { h = 1; next }
            h && / at 0x/ { if (!/: \?\?\?/) n++; h = 0 } END { print n + 0 }' .err)
        [ $code = 0 ] || { [ $code = 99 ] && [ "$named" = 0 ]; } || {
            bad=$((bad + 1))
            echo "BAD valgrind, $a: code $code, $(head -c 600 .err)"
        }
    done
    echo "valgrind: 4 commands, $((bad - before)) wrong"
fi
if [ -n "${TSAN_BUILD:-}" ]; then # a build with -DDITGEN_TSAN=ON or the preset tsan
    before=$bad
    "$TSAN_BUILD/app/ditgen" x --size 32x32 --frames 5 --steps 2 -t 2 -s 1 -q -o tsan.y4m 2>.err || { bad=$((bad + 1)); echo "BAD tsan: $(head -c 600 .err)"; }
    echo "ThreadSanitizer, 2 threads: $((bad - before)) wrong"
fi
echo "torture: $bad wrong"
[ $bad = 0 ]
