#!/bin/sh
# Attention kernels on the GPU of this machine: builds, checks, times, one short table last.
# Usage: kernels.sh [OUT_FOLDER [CHECK_PROBLEMS [REPEATS [SECONDS]]]]
#   BENCH_KERNELS=FILE  an executable that was built elsewhere, instead of building here
#   SANITIZE=1          compute-sanitizer's four tools at small sizes first
# Needs a CUDA toolkit (unless BENCH_KERNELS is given) and CMake; neither libav nor iniparser. cuDNN is
# found in the loader's path or in the python3 that holds PyTorch.
set -eu
root=$(cd "$(dirname "$0")/../.." && pwd)
out=${1:-/tmp/ditgen-kernels}
problems=${2:-200} repeats=${3:-1000} seconds=${4:-60}
mkdir -p "$out"
bench=${BENCH_KERNELS:-}
if [ -z "$bench" ]; then
    build=${BUILD:-/tmp/ditgen-kernels-build}
    cmake -S "$root" -B "$build" -DDITGEN_CUDA=ON -DDITGEN_LIBAV=OFF -DDITGEN_INIPARSER=OFF \
        -DDITGEN_ONEDNN=OFF >"$out/configure.log" 2>&1 || { tail -n 20 "$out/configure.log"; exit 1; }
    cmake --build "$build" -j --target bench_kernels >"$out/build.log" 2>&1 || { tail -n 20 "$out/build.log"; exit 1; }
    bench=$build/tests/bench/kernels/bench_kernels
fi
cudnn=$(python3 -c 'import nvidia.cudnn, os; print(os.path.join(list(nvidia.cudnn.__path__)[0], "lib"))' 2>/dev/null || true)
[ -n "$cudnn" ] && LD_LIBRARY_PATH=$cudnn${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH} && export LD_LIBRARY_PATH
nvidia-smi --query-gpu=name,driver_version,clocks.sm,clocks.mem,power.draw,temperature.gpu,utilization.gpu --format=csv,noheader
failed=0
if [ "${SANITIZE:-0}" = 1 ]; then
    for tool in ${TOOLS:-memcheck racecheck initcheck synccheck}; do
        for seed in 129 279; do # small problems that between them reach every instance
            log=$out/$tool-$seed.log
            if timeout ${TOOL_SECONDS:-200} compute-sanitizer --tool $tool --error-exitcode 9 "$bench" check 14 1 $seed >"$log" 2>&1; then
                echo "$tool, seed $seed: $(tail -n 1 "$log")"
            else
                failed=1
                echo "$tool, seed $seed: FAILED"
                grep -v '^=* *$' "$log" | head -n 12
            fi
        done
    done
fi
"$bench" check "$problems" "$repeats" >"$out/check.log" 2>&1 || failed=1
head -n 20 "$out/check.log" | cut -c 1-240
nvidia-smi --query-gpu=timestamp,clocks.sm,power.draw,temperature.gpu --format=csv,noheader -lms 250 >"$out/clocks.csv" &
log=$!
"$bench" time "$seconds" "$out" >"$out/time.log" 2>&1 || failed=1
"$bench" extras >"$out/extras.log" 2>&1 || failed=1
kill $log
echo "SM clock while timing, MHz: $(cut -d, -f2 "$out/clocks.csv" | tr -dc '0-9\n' | sort -n | awk '{a[NR]=$1} END {print "median " a[int((NR+1)/2)] ", least " a[1] ", most " a[NR]}')"
cat "$out/extras.log" "$out/time.log"
[ $failed = 0 ] || echo "some checks FAILED"
exit $failed
