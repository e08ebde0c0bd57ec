#!/bin/sh
# Everything that a system may refuse, refused in turn, by hand: minutes to an hour.
#
# Usage: [JOBS=N] sh tests/torture.sh [BUILD] [STEP]   BUILD: build folder (build); STEP: every STEPth
# allocation only (default 1: every one; files and threads are few, and all are tried); JOBS: runs at a time. Wanted of each run: the clip, or one line and an exit code of 2 to 6; no
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

# judge.sh FOLDER CODE: "ended", "clip" or "BAD why" of the run in FOLDER whose standard error is FOLDER.err
cat >judge.sh <<'END'
w=$1 said="$(head -c 300 "$1.err" | tr '\n' ' ')"
left=$(find "$w" -name '*.part' | head -1)
case $2 in
0) { [ ! -e "$w/o.y4m" ] || cmp -s ref.y4m "$w/o.y4m"; } && verdict=clip || verdict="BAD other bytes" ;;
2 | 3 | 4 | 5 | 6) [ -n "$said" ] && verdict=ended || verdict="BAD code $2 and no word" ;;
*) verdict="BAD code $2: $said" ;;
esac
[ -z "$left" ] || verdict="BAD left $left, $verdict"
rm -rf "$w" "$w.err"
echo "$verdict"
END
# refuse.sh KIND LONG N args...: the Nth call of the kind fails; W stands for the run's own folder
cat >refuse.sh <<'END'
kind=$1 long=$2 n=$3 code=0
shift 3
mkdir w$n
FAIL_KIND=$kind FAIL_AT=$n FAIL_LONG=$long LD_PRELOAD="$PWD/shim.so" timeout 60 "$DITGEN" $(echo "$@" | sed "s: W/: w$n/:g") >/dev/null 2>w$n.err </dev/null || code=$?
echo "$(sh judge.sh w$n $code) $kind $n"
END
export DITGEN="$ditgen"
# verdict NAME CODE: of the run in the folder w
verdict() {
    mv .err w.err
    v=$(sh judge.sh w $2)
    case $v in BAD*) echo "$v: $1"; bad=$((bad + 1)) ;; esac
}
# each KIND LONG args...: every STEPth call of the kind fails, JOBS at a time
each() {
    kind=$1 long=$2 by=1
    shift 2
    mkdir W
    FAIL_KIND=$kind FAIL_COUNT="$T/count" LD_PRELOAD="$T/shim.so" "$ditgen" "$@" >/dev/null 2>.err || true
    rm -rf W
    n=$(cat count)
    case $kind in malloc | library) by=$step ;; esac
    seq 1 $by $n | xargs -P "${JOBS:-1}" -I N sh refuse.sh $kind $long N "$@" >out
    wrong=$(grep -c '^BAD' out || true)
    grep '^BAD' out || true
    bad=$((bad + wrong))
    echo "$kind$([ "$long" = 1 ] && echo ' and all later') fails, $*: $(grep -c . out) of $n places, $(grep -c '^ended' out) runs ended with a message, $wrong wrong"
}
each malloc 0 $tiny -o W/o.y4m
each malloc 1 $tiny -o W/o.y4m
each malloc 0 x --plan --size 32x32 --frames 1 -t 1
# what libraries ask for: oneDNN 2.6's code generator does not look at what it gets
each library 0 $tiny -o W/o.y4m
each library 1 $tiny -o W/o.y4m
each open 0 $tiny -o W/o.y4m --save-latents W/l --dump-config W/c
each open 1 $tiny -o W/o.y4m --save-latents W/l
each thread 0 x --size 32x32 --frames 1 --steps 1 -s 1 -q -o W/o.y4m

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
    for a in "-t 2 --precision fp32" "-t 2 --precision bf16" "-t 4 --precision fp32"; do
        "$TSAN_BUILD/app/ditgen" x --size 32x32 --frames 5 --steps 2 $a -s 1 -q -y -o tsan.y4m 2>.err || { bad=$((bad + 1)); echo "BAD tsan $a: $(head -c 600 .err)"; }
    done
    echo "ThreadSanitizer, 2 and 4 threads: 3 runs, $((bad - before)) wrong"
fi
echo "torture: $bad wrong"
[ $bad = 0 ]
