#!/bin/sh
# Every C and CUDA file of ours is as clang-format leaves it (.clang-format; vendor folders are not ours).
# Other major versions format differently: without clang-format 14 it says so and skips (77).
# Usage: check_format.sh SOURCE_DIR [fix]
set -eu
cd "$1"
wanted=14
tool=
for t in clang-format-$wanted clang-format; do
    if command -v "$t" >/dev/null && "$t" --version | grep -Eq "version $wanted\."; then
        tool=$t
        break
    fi
done
if [ -z "$tool" ]; then
    echo "skipped: there is no clang-format $wanted here"
    exit 77
fi
files=$(find app sched model attention tests \( -name '*.[ch]' -o -name '*.cu' -o -name '*.cuh' \) -not -path '*/vendor/*' | sort)
if [ "${2:-}" = fix ]; then
    # shellcheck disable=SC2086 # no file of ours has a blank in its name
    exec "$tool" -i $files
fi
# shellcheck disable=SC2086
wrong=$("$tool" --dry-run -Werror $files 2>&1 | sed -n 's/^\([^: ]*\):[0-9]*:[0-9]*: error.*/\1/p' | uniq)
for f in $wrong; do
    echo "$f is not as $tool leaves it; try: sh tests/check_format.sh . fix" >&2
done
[ -z "$wrong" ] && echo "$(echo "$files" | wc -l) files are formatted"
