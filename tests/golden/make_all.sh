#!/bin/sh
# Makes every golden file anew from the reference implementation. Wants a Python with the packages of
# tests/golden/README.md:   tests/golden/make_all.sh [PYTHON]
# The files change only when the reference, a script here or the embedded model changed.
set -eu
cd "$(dirname "$0")"
python=${1:-python3}
"$python" tiny.py
for script in make_*.py; do
    echo "== $script"
    "$python" "$script"
done
total=$(du -cb data/* | tail -n 1 | cut -f 1)
echo "$total bytes of golden files"
[ "$total" -lt 4194304 ] || { echo "more than 4 MiB" >&2; exit 1; }
