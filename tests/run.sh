#!/bin/sh
# The second command: installs what is missing, builds with warnings as errors, and runs every test;
# then the same suite with AddressSanitizer and UndefinedBehaviorSanitizer, and the minimal build.
# Usage: sh tests/run.sh [quick]   (quick: the first suite only)
set -eu
top=$(cd "$(dirname "$0")/.." && pwd)
sh "$top/app/setup.sh" -DDITGEN_WERROR=ON -DDITGEN_TESTS=ON
jobs=$(nproc)
ctest --test-dir "$top/build" --output-on-failure -j "$jobs"
[ "${1:-}" != quick ] || exit 0

build() { # folder, cmake flags
    dir="$top/$1"
    shift
    cmake -S "$top" -B "$dir" -DDITGEN_WERROR=ON "$@" >/dev/null
    cmake --build "$dir" -j "$jobs" >/dev/null
}
echo "== AddressSanitizer and UndefinedBehaviorSanitizer"
build build-sanitize -DDITGEN_SANITIZE=ON -DDITGEN_CUDA=OFF
ctest --test-dir "$top/build-sanitize" --output-on-failure -j "$jobs"
echo "== minimal build: compiler, CMake and libc only"
build build-minimal -DDITGEN_ONEDNN=OFF -DDITGEN_LIBAV=OFF -DDITGEN_CUDA=OFF
ctest --test-dir "$top/build-minimal" --output-on-failure -j "$jobs"
