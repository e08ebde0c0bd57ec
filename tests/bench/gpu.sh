#!/bin/sh
# The whole program on the GPU of this machine: builds, checks, times, beside PyTorch in the same run; one short
# table last that says of each demand what was wanted and seen. About 7 minutes on an H200 with 16 cores.
# Usage: gpu.sh [OUT_FOLDER [SECONDS]]   (SECONDS: for everything, 480 unless given)
#   BUILD=FOLDER   the build folder, kept from one call to the next (/tmp/ditgen-gpu-build)
#   WAN13B=FOLDER  a folder of random weights in Wan2.1 1.3B's shape (/tmp/ditgen-wan13b); made when it is not there
#   PARTS="..."    only these of: checks goldens clips sanitize embedded wan13b peers
# Needs a CUDA toolkit and CMake; PyTorch and numpy for wan13b, with diffusers and transformers for peers. cuBLASLt and
# cuDNN are found in the loader's path or in the python3 that holds PyTorch. Without libav clips are y4m.
# OUT_FOLDER: summary.txt clocks.csv logs.tar.gz
set -eu
root=$(cd "$(dirname "$0")/../.." && pwd)
out=${1:-/tmp/ditgen-gpu}
total=${2:-480}
build=${BUILD:-/tmp/ditgen-gpu-build}
wan13b=${WAN13B:-/tmp/ditgen-wan13b}
parts=${PARTS:-checks goldens clips sanitize embedded wan13b peers}
began=$(date +%s)
mkdir -p "$out"
logs=$(mktemp -d)
finish() {
    tar -C "$logs" -czf "$out/logs.tar.gz" .
    rm -r "$logs"
}
trap finish EXIT
wanted() { case " $parts " in *" $1 "*) return 0 ;; *) return 1 ;; esac; }
# part NAME LIMIT COMMAND...: output to $logs/NAME; $logs/NAME.end is ok, cut, failed or "left out"
part() {
    name=$1 limit=$2
    shift 2
    left=$((total - $(date +%s) + began))
    [ "$limit" -le "$left" ] || limit=$left
    if [ "$limit" -lt 5 ]; then
        echo "left out" >"$logs/$name.end"
        return 0
    fi
    rc=0
    timeout -k 5 "$limit" "$@" >"$logs/$name" 2>&1 || rc=$?
    case $rc in
    0) end=ok ;;
    124 | 137) end="cut after $limit s" ;;
    *) end="failed ($rc)" ;;
    esac
    echo "$end" >"$logs/$name.end"
}

libraries=$(python3 - 2>/dev/null <<'PY' || true
import importlib, os
for name in ("nvidia.cu13", "nvidia.cublas", "nvidia.cudnn"):
    try:
        print(os.path.join(list(importlib.import_module(name).__path__)[0], "lib"))
    except ImportError:
        pass
PY
)
for l in $libraries; do
    LD_LIBRARY_PATH=$l${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
    export LD_LIBRARY_PATH
done
nvidia-smi --query-gpu=name,driver_version,clocks.sm,power.limit,temperature.gpu --format=csv,noheader

if wanted wan13b && [ ! -f "$wan13b/model_index.json" ]; then
    part make 200 python3 "$root/tests/bench/make_wan13b.py" "$wan13b" &
fi
part configure 60 cmake -S "$root" -B "$build" -DDITGEN_CUDA=ON -DDITGEN_LIBAV=OFF -DDITGEN_ONEDNN=OFF
part build 250 cmake --build "$build" -j --target ditgen bench_ops check_plans check_low test_velocity_dit test_cache_device_dit check_frames check_ends check_text
wait
[ "$(cat "$logs/build.end")" = ok ] || { tail -n 20 "$logs/configure" "$logs/build"; exit 1; }
ditgen=$build/app/ditgen
ops=$build/tests/bench/ops/bench_ops
prompt="a rocket flies up in outer space"
clip() { # NAME LIMIT FLAGS...
    name=$1 limit=$2
    shift 2
    part "$name" "$limit" "$ditgen" generate "$prompt" -s 3 -y -o "$logs/$name.y4m" "$@"
}

if wanted checks; then # nothing is timed, so all run at once
    part ops 60 "$ops" check 1 &
    part plans 120 "$build/tests/bench/kernels/check_plans" 100 1 &
    part low 90 "$build/tests/bench/kernels/check_low" 40 1 &
    part caches 90 env DITGEN_TEST_DEVICE=cuda "$build/tests/test_cache_device_dit" &
    for c in check_frames check_ends check_text; do
        part $c 60 "$build/tests/bench/frames/$c" &
    done
    wait
fi
wanted goldens && part velocity 60 env DITGEN_TEST_DEVICE=cuda "$build/tests/test_velocity_dit"
if wanted clips; then
    clip cuda 60 --device cuda
    clip again 60 --device cuda
    clip cuda32 60 --device cuda --precision fp32
    clip cpu32 200 --device cpu --precision fp32
    part against32 30 "$ditgen" compare "$logs/cpu32.y4m" "$logs/cuda32.y4m"
    part against16 30 "$ditgen" compare "$logs/cpu32.y4m" "$logs/cuda.y4m"
    cmp "$logs/cuda.y4m" "$logs/again.y4m" >"$logs/same" 2>&1 && echo ok >"$logs/same.end" || echo failed >"$logs/same.end"
fi
if wanted sanitize; then
    for tool in memcheck racecheck synccheck; do # cuBLASLt's own kernels (nvjet) race by racecheck's account
        part $tool 120 compute-sanitizer --tool $tool --kernel-regex-exclude kns=nvjet --error-exitcode 9 "$ditgen" generate x -s 1 \
            --device cuda --size 64x64 --frames 5 --steps 3 -y -o "$logs/$tool.y4m" &
    done
    wait
fi
nvidia-smi --query-gpu=timestamp,clocks.sm,power.draw,temperature.gpu --format=csv,noheader -lms 250 >"$out/clocks.csv" &
clocks=$!
wanted embedded && part embedded 60 "$ditgen" bench "$prompt" --device cuda --runs 5
wanted wan13b && part wan13b 150 "$ditgen" bench "$prompt" -m "$wan13b" --device cuda --precision bf16 --size 832x480 --frames 81 --steps 6 --runs 2
wanted peers && part peers 150 python3 "$root/tests/bench/compare_gpu.py" --rounds 3
kill $clocks

line() { printf '%-34s %-22s %-60s %s\n' "$@"; }
of() { # LOG PATTERN FIELD: a number of the first line that begins with the pattern
    awk -v f="$3" -v p="$2" 'index($0, p) == 1 { print $f; exit }' "$logs/$1" 2>/dev/null || true
}
summary() {
    line what wanted seen verdict
    for c in ops plans low caches check_frames check_ends check_text velocity memcheck racecheck synccheck same; do
        [ -f "$logs/$c.end" ] || continue
        line "$c" "nothing failed" "$(tail -n 1 "$logs/$c" | sed 's/^=* *//' | cut -c 1-60)" "$(cat "$logs/$c.end")"
    done
    for c in against32 against16; do
        [ -f "$logs/$c.end" ] || continue
        line "$c" "60 dB in fp32" "$(tail -n 1 "$logs/$c" | cut -c 1-60)" "$(cat "$logs/$c.end")"
    done
    for c in embedded wan13b; do
        [ -f "$logs/$c.end" ] || continue
        for phase in text denoise decode all; do
            line "$c $phase" "seconds" "$(of $c "$phase" 2)" "$(cat "$logs/$c.end")"
        done
    done
    [ ! -f "$logs/peers" ] || grep -E ' s \(' "$logs/peers" | sed 's/^/PyTorch: /' || true
    echo "SM clock above 500 W, MHz: $(awk -F, '$3 + 0 > 500 { print $2 + 0 }' "$out/clocks.csv" | sort -n |
        awk '{ a[NR] = $1 } END { print "median " a[int((NR + 1) / 2)] ", least " a[1] ", most " a[NR] }')"
    echo "all of it: $(($(date +%s) - began)) s"
}
summary | tee "$out/summary.txt"
failed=0
for end in "$logs"/*.end; do
    [ "$(cat "$end")" = ok ] || failed=1
done
exit $failed
