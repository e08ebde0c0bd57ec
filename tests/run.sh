#!/bin/sh
# The second command: installs what is missing, builds with warnings as errors, and runs every test;
# then the same suite with AddressSanitizer and UndefinedBehaviorSanitizer, and the minimal build.
# Usage: sh tests/run.sh [quick]   (quick: the first suite only)
set -eu
top=$(cd "$(dirname "$0")/.." && pwd)
DITGEN_PACKAGES=ccache sh "$top/app/setup.sh" packages
launcher=$(command -v ccache || true) # the minimal build shares most of its objects with the first
export CCACHE_DIR="$top/build/ccache" CCACHE_BASEDIR="$top" CCACHE_NOHASHDIR=1
sh "$top/app/setup.sh" -DDITGEN_WERROR=ON -DDITGEN_TESTS=ON "-DCMAKE_C_COMPILER_LAUNCHER=$launcher"
jobs=$(nproc)
ctest --test-dir "$top/build" --output-on-failure -j "$jobs"
[ "${1:-}" != quick ] || exit 0

build() { # folder, cmake flags
    dir="$top/$1"
    shift
    cmake -S "$top" -B "$dir" -DDITGEN_WERROR=ON "-DCMAKE_C_COMPILER_LAUNCHER=$launcher" "$@" >/dev/null
    cmake --build "$dir" -j "$jobs" >/dev/null
}
echo "== AddressSanitizer and UndefinedBehaviorSanitizer"
build build-sanitize -DDITGEN_SANITIZE=ON -DDITGEN_CUDA=OFF
ctest --test-dir "$top/build-sanitize" --output-on-failure -j "$jobs"
echo "== minimal build: compiler, CMake and libc only"
build build-minimal -DDITGEN_ONEDNN=OFF -DDITGEN_LIBAV=OFF -DDITGEN_CUDA=OFF
ctest --test-dir "$top/build-minimal" --output-on-failure -j "$jobs" -LE no_package # the first suite ran those
