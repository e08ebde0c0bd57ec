#!/bin/sh
# Builds for another processor and runs the unit tests in an emulator, by hand. On Debian:
# crossbuild-essential-arm64 and qemu-user. No library of the other processor is needed: it is the
# minimal build, plain C throughout.
# Usage: cross.sh [TRIPLET] [ctest arguments]      aarch64-linux-gnu; the build goes to build-TRIPLET
set -eu
top=$(cd "$(dirname "$0")/.." && pwd)
triplet=${1:-aarch64-linux-gnu}
[ $# = 0 ] || shift
processor=${triplet%%-*}
build="$top/build-$triplet"
for tool in "$triplet-gcc" "qemu-$processor"; do
    command -v "$tool" >/dev/null || { echo "there is no $tool here" >&2; exit 77; }
done
cmake -S "$top" -B "$build" -DCMAKE_SYSTEM_NAME=Linux -DCMAKE_SYSTEM_PROCESSOR="$processor" \
    -DCMAKE_C_COMPILER="$triplet-gcc" -DCMAKE_C_COMPILER_LAUNCHER="${LAUNCHER:-}" \
    -DCMAKE_CROSSCOMPILING_EMULATOR="qemu-$processor;-L;/usr/$triplet" \
    -DDITGEN_ONEDNN=OFF -DDITGEN_LIBAV=OFF -DDITGEN_INIPARSER=OFF -DDITGEN_SENTENCEPIECE=OFF -DDITGEN_CUDA=OFF \
    -DDITGEN_WERROR=ON
cmake --build "$build" -j "${JOBS:-2}"
[ $# != 0 ] || set -- -L unit
ctest --test-dir "$build" --output-on-failure "$@"
