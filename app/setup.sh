#!/bin/sh
# Installs what the build lacks (Debian and Ubuntu, as root or with sudo) and builds into build/.
# Safe to run again: nothing is fetched or rebuilt that is there. Usage: sh app/setup.sh [packages | cmake flags]
# packages: installs, and builds nothing. $DITGEN_PACKAGES: more of them, left out where nothing can be installed.
set -eu
top=$(cd "$(dirname "$0")/.." && pwd)
need="gcc cmake make pkg-config libdnnl-dev libavformat-dev libavcodec-dev libavutil-dev
libswscale-dev"

more=${DITGEN_PACKAGES:-}
[ "$(id -u)" = 0 ] || command -v sudo >/dev/null 2>&1 || more=""
missing=""
if command -v dpkg-query >/dev/null 2>&1; then
    for p in $need $more; do
        dpkg-query -W -f='${Status}' "$p" 2>/dev/null | grep -q "ok installed" || missing="$missing $p"
    done
else
    echo "setup: no dpkg here; building with what is installed (see README, 'Building')"
fi
if [ -n "$missing" ]; then
    echo "setup: installing$missing"
    if [ "$(id -u)" = 0 ]; then
        sudo=""
    elif command -v sudo >/dev/null 2>&1; then
        sudo="sudo"
    else
        echo "setup: these packages are missing and there is no root or sudo to install them:$missing" >&2
        exit 4
    fi
    $sudo apt-get update -qq
    $sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing >/dev/null
fi
[ "${1:-}" != packages ] || exit 0
cmake -S "$top" -B "$top/build" "$@" >"${TMPDIR:-/tmp}/ditgen-cmake.$$" 2>&1 || {
    cat "${TMPDIR:-/tmp}/ditgen-cmake.$$" >&2
    exit 1
}
rm -f "${TMPDIR:-/tmp}/ditgen-cmake.$$"
cmake --build "$top/build" -j "$(nproc)" | grep -E "warning|error|Error" || true
cmake --build "$top/build" -j "$(nproc)" >/dev/null
