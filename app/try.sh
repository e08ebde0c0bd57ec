#!/bin/sh
# The first command: installs what is missing, builds, and turns a prompt into a clip.
# Usage: sh app/try.sh ["a prompt"] [more ditgen flags]
set -eu
top=$(cd "$(dirname "$0")/.." && pwd)
sh "$top/app/setup.sh"
[ $# -gt 0 ] || set -- "a rocket flies up in outer space"
exec "$top/build/app/ditgen" "$@"
