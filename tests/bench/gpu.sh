#!/bin/sh
# The whole program on the GPU of this machine: builds, checks, times, beside PyTorch in the same run; one short
# table last that says of each demand what was wanted and seen. About 7 minutes on an H200 with 16 cores.
# Usage: gpu.sh [OUT_FOLDER [SECONDS]]   (SECONDS: for everything, 480 unless given)
#   BUILD=FOLDER   the build folder, kept from one call to the next (/tmp/ditgen-gpu-build)
#   WAN13B=FOLDER  a folder of random weights in Wan2.1 1.3B's shape (/tmp/ditgen-wan13b); made when it is not there
#   WAN14B=FOLDER  the same in 14B's shape (/dev/shm/ditgen-wan14b, 28.8 GB; its text encoder is the other's)
#   PARTS="..."    only these of: checks goldens clips sanitize embedded wan13b peers; by name alone: vram
# Needs a CUDA toolkit and CMake; PyTorch and numpy for wan13b, with diffusers and transformers for peers. cuBLASLt and
# cuDNN are found in the loader's path or in the python3 that holds PyTorch. Without libav clips are y4m.
# OUT_FOLDER: summary.txt clocks.csv logs.tar.gz
set -eu
root=$(cd "$(dirname "$0")/../.." && pwd)
out=${1:-/tmp/ditgen-gpu}
total=${2:-480}
build=${BUILD:-/tmp/ditgen-gpu-build}
wan13b=${WAN13B:-/tmp/ditgen-wan13b}
wan14b=${WAN14B:-/dev/shm/ditgen-wan14b}
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

make_weights() { # one after the other: the second folder's text encoder is the first's
    if wanted wan13b || wanted vram; then
        [ -f "$wan13b/vae/diffusion_pytorch_model.safetensors" ] && [ -f "$wan13b/text_encoder/model.safetensors" ] ||
            part make 200 python3 "$root/tests/bench/make_wan.py" "$wan13b"
    fi
    if wanted vram && [ ! -f "$wan14b/vae/diffusion_pytorch_model.safetensors" ]; then
        part make14 200 python3 "$root/tests/bench/make_wan.py" "$wan14b" --size 14b --text "$wan13b/text_encoder"
    fi
}
make_weights &
part configure 60 cmake -S "$root" -B "$build" -DDITGEN_CUDA=ON -DDITGEN_LIBAV=OFF -DDITGEN_ONEDNN=OFF
part build 250 cmake --build "$build" -j --target ditgen bench_ops check_plans check_low check_making test_velocity_dit test_e2e_model test_cache_device_dit check_frames check_ends check_text
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
    part making 60 "$build/tests/bench/kernels/check_making" 120 1 &
    part caches 90 env DITGEN_TEST_DEVICE=cuda "$build/tests/test_cache_device_dit" &
    for c in check_frames check_ends check_text; do
        part $c 60 "$build/tests/bench/frames/$c" &
    done
    wait
fi
if wanted goldens; then
    part velocity 60 env DITGEN_TEST_DEVICE=cuda "$build/tests/test_velocity_dit" &
    part e2e 90 env DITGEN_TEST_DEVICE=cuda "$build/tests/golden/test_e2e_model"
    wait
fi
if wanted clips; then
    clip cuda 60 --device cuda
    clip again 60 --device cuda
    clip cuda32 60 --device cuda --precision fp32
    clip cpu32 200 --device cpu --precision fp32
    part against32 30 "$ditgen" compare "$logs/cpu32.y4m" "$logs/cuda32.y4m"
    clip cuda8 60 --device cuda --precision fp8
    part against8 30 "$ditgen" compare "$logs/cuda.y4m" "$logs/cuda8.y4m"
    part against16 30 "$ditgen" compare "$logs/cpu32.y4m" "$logs/cuda.y4m"
    cmp "$logs/cuda.y4m" "$logs/again.y4m" >"$logs/same" 2>&1 && echo ok >"$logs/same.end" || echo failed >"$logs/same.end"
fi
# Kernels of cuBLASLt that race by racecheck's account are let pass, ours are not. They cannot be left out of what it
# patches: launched unpatched in a cluster beside racecheck's runtime, they fault with no other kernel patched either.
races_of_ours() { # LOG: 0 when the clip ended and no race names a kernel that is not nvjet's
    grep -q 'RACECHECK SUMMARY' "$1" && ! grep -E 'Internal Sanitizer Error|returned an error' "$1" &&
        ! grep 'Race reported' "$1" | grep -v nvjet
}
if wanted sanitize; then
    tiny="generate x -s 1 --device cuda --size 32x32 --frames 1 --steps 2 -y"
    for tool in memcheck synccheck; do
        part $tool 120 compute-sanitizer --tool $tool --error-exitcode 9 "$ditgen" generate x -s 1 \
            --device cuda --size 64x64 --frames 5 --steps 3 -y -o "$logs/$tool.y4m" &
    done
    # initcheck counts 73,208 errors after cuBLASLt's bf16 products, which store by the copy engine: fp32
    part initcheck 150 compute-sanitizer --tool initcheck --error-exitcode 9 "$ditgen" $tiny --precision fp32 -o "$logs/initcheck.y4m" &
    part race32 150 compute-sanitizer --tool racecheck --error-exitcode 9 "$ditgen" $tiny --precision fp32 -o "$logs/race32.y4m" &
    part racecheck 150 compute-sanitizer --tool racecheck "$ditgen" $tiny -o "$logs/racecheck.y4m" &
    wait
    if [ "$(cat "$logs/racecheck.end")" = ok ] && ! races_of_ours "$logs/racecheck" >"$logs/racecheck.ours"; then
        echo "failed (ours)" >"$logs/racecheck.end"
    fi
fi
nvidia-smi --query-gpu=timestamp,clocks.sm,power.draw,temperature.gpu --format=csv,noheader -lms 250 >"$out/clocks.csv" &
clocks=$!
wanted embedded && part embedded 60 "$ditgen" bench "$prompt" --device cuda --runs 5
wanted wan13b && part wan13b 150 "$ditgen" bench "$prompt" -m "$wan13b" --device cuda --precision bf16 --size 832x480 --frames 81 --steps 6 --runs 2
wanted wan13b && part wan13b_fp8 90 "$ditgen" bench "$prompt" -m "$wan13b" --device cuda --precision fp8 --size 832x480 --frames 81 --steps 6 --runs 1
# 14B's weights, all of them there and 16 GiB of the card: by the flag, and by somebody who leaves no more free
vram14b() { # NAME FLAGS...
    name=$1
    shift
    part "$name" 120 "$ditgen" bench "$prompt" -m "$wan14b" --device cuda --precision bf16 --size 832x480 --frames 81 --steps 4 --runs 1 "$@"
}
if wanted vram; then
    for m in 8G 16G; do
        part "plan$m" 30 "$ditgen" generate "$prompt" -m "$wan14b" --device cuda --size 832x480 --frames 81 --plan --max-vram $m
    done
    clip small 60 --device cuda -v # the log's peaks beside what was predicted, of the embedded model
    for m in 40G 2500M; do # 1.3B: all blocks there, and most of them streamed, to the same bytes
        clip vram$m 60 -m "$wan13b" --device cuda --precision bf16 --size 256x256 --frames 17 --steps 5 -v --max-vram $m
    done
    cmp "$logs/vram40G.y4m" "$logs/vram2500M.y4m" >"$logs/samevram" 2>&1 && echo ok >"$logs/samevram.end" || echo failed >"$logs/samevram.end"
    vram14b resident
    vram14b streamed --max-vram 16G
    python3 - <<'PY' >"$logs/ballast" 2>&1 &
import time, torch
free = torch.cuda.mem_get_info()[0]
x = torch.empty(free - (16 << 30), dtype=torch.uint8, device="cuda")
print("left free:", torch.cuda.mem_get_info()[0] >> 20, "MiB", flush=True)
time.sleep(300)
PY
    ballast=$!
    for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15; do grep -q "left free" "$logs/ballast" || sleep 1; done
    vram14b ballasted
    kill $ballast
fi
wanted peers && part peers 150 python3 "$root/tests/bench/compare_gpu.py" --rounds 3
kill $clocks

line() { printf '%-34s %-22s %-60s %s\n' "$@"; }
of() { # LOG PATTERN FIELD: a number of the first line that begins with the pattern
    awk -v f="$3" -v p="$2" 'index($0, p) == 1 { print $f; exit }' "$logs/$1" 2>/dev/null || true
}
summary() {
    line what wanted seen verdict
    for c in ops plans low caches check_frames check_ends check_text velocity e2e memcheck synccheck initcheck race32 racecheck same; do
        [ -f "$logs/$c.end" ] || continue
        line "$c" "nothing failed" "$(tail -n 1 "$logs/$c" | sed 's/^=* *//' | cut -c 1-60)" "$(cat "$logs/$c.end")"
    done
    grep -h '^bf16: mean of' "$logs/e2e" 2>/dev/null || true
    for c in against32 against16 against8; do
        [ -f "$logs/$c.end" ] || continue
        line "$c" "60 dB in fp32; fp8: beside bf16" "$(tail -n 1 "$logs/$c" | cut -c 1-60)" "$(cat "$logs/$c.end")"
    done
    grep -h '^approximate: linear layers' "$logs/cuda8" 2>/dev/null || true
    for c in embedded wan13b wan13b_fp8; do
        [ -f "$logs/$c.end" ] || continue
        for phase in text denoise decode all; do
            line "$c $phase" "seconds" "$(of $c "$phase" 2)" "$(cat "$logs/$c.end")"
        done
    done
    if [ -f "$logs/streamed" ]; then
        line "1.3B, 2500M as 40G" "same bytes" "$(grep -o '[0-9]* of [0-9]* blocks stay' "$logs/vram2500M" | head -n 1)" "$(cat "$logs/samevram.end")"
        for c in small vram40G vram2500M; do
            grep -h 'peak on cuda' "$logs/$c" | sed "s/^/$c: /"
        done
        for c in resident streamed ballasted; do
            line "14B $c, a step" "1.25 x resident" "$(of $c "one step " 3) s; text $(of $c text 2), open $(of $c "open model" 3), decode $(of $c decode 2)" "$(cat "$logs/$c.end")"
            awk '/^of the GPU/ { go = 1 } go' "$logs/$c"
        done
    fi
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
