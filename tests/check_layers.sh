#!/bin/sh
# Who includes whom: app → {sched, model}, model → attention → base; base ← ops, weights ← text, dit, vae ←
# model.c. Another room is entered by its door only. Also compiles every header alone.
# Usage: check_layers.sh SOURCE_DIR [CC]
set -eu
cd "$1"
cc=${2:-cc}
bad=0
say() {
    echo "$1" >&2
    bad=1
}
files=$(find app sched model attention -name '*.[ch]' -o -name '*.cu' -o -name '*.cuh' | grep -v /vendor/ | sort)
for f in $files; do
    case $f in
    app/lib/*) allowed='^(app/lib/|sched/sched\.h|model/model\.h|attention/attention\.h|model/base/)' ;;
    app/clips/*) allowed='^(app/clips/|model/base/)' ;;
    app/cli/*) allowed='^(app/|sched/sched\.h|model/model\.h|attention/attention\.h|model/base/)' ;;
    sched/*) allowed='^(sched/|model/model\.h|model/base/)' ;;
    model/base/*) allowed='^model/base/' ;;
    model/weights/*) allowed='^model/(base|weights)/' ;;
    model/ops/*) allowed='^model/(base|ops)/' ;;
    model/text/*) allowed='^model/(base/|weights/|ops/[a-z]+\.h|text/)' ;;
    model/dit/*) allowed='^(model/(base/|weights/|ops/[a-z]+\.h|dit/)|attention/attention\.h)' ;;
    model/vae/*) allowed='^model/(base/|weights/|ops/[a-z]+\.h|vae/)' ;;
    model/*) allowed='^(model/|attention/attention\.h)' ;;
    attention/*) allowed='^(attention/|model/base/)' ;;
    esac
    for i in $(sed -n 's/^ *# *include "\([^"]*\)".*/\1/p' "$f"); do
        echo "$i" | grep -Eq "$allowed" || say "$f includes $i, which its room may not"
    done
done
compiles() { # text of a C file; what is wrong with it goes to standard output
    printf '%s\n' "$1" | $cc -std=c11 -D_GNU_SOURCE -I. -fsyntax-only -Wall -Werror -x c - 2>&1
}
for h in $(echo "$files" | grep '\.h$'); do
    case $h in *_simd.h | *_body.h | attention/kernels/cpu_*.h | model/ops/cpu/frames/kernels/*.h) continue ;; esac # one file a processor level, with its flags
    optional=$(grep -E '^#include <(libav|cuda|cudnn|dnnl)' "$h" || true)
    if [ -n "$optional" ] && ! compiles "$optional" >/dev/null; then
        echo "$h: not compiled alone, its library is not installed"
        continue
    fi
    wrong=$(compiles "#include \"$h\"") || say "$h does not compile alone: $(echo "$wrong" | head -n 1)"
done
[ $bad = 0 ] && echo "$(echo "$files" | wc -l) files keep their rooms"
exit $bad
