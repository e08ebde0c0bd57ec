#!/bin/sh
# Do two commits make the same clips, to the byte? Builds both with the same flags in a temporary folder,
# makes six clips with each (sizes, counts of frames, methods, solvers, the few-step adapter, precisions)
# and the latents of every solver after 1 to 13 steps, and prints a table of hashes. For changes that
# move code; run by hand, on one machine.
# Usage: same_frames.sh OLD NEW [cmake flags]     commits, branches or tags; exit 1 if a hash differs
# Environment: THREADS (2) of the clips, JOBS (2) of the builds, KEEP=1 keeps the folder and says where;
# EXCEPT=COMMIT: one that means to change clips. What differs is made again by OLD with its changes to
# program code, and is "by COMMIT" when that equals NEW: then nothing else changed it, and it is no failure.
# (Laid upon OLD, not taken out of NEW: files that it touched may have moved since.)
#   EXCEPT=c98f0dd same_frames.sh 8b1a4ea main    bf16: the text encoder keeps scores fp32, as the reference
set -eu
export DITGEN_DEVICE="${DITGEN_DEVICE:-cpu}"
[ $# -ge 2 ] || { echo "usage: same_frames.sh OLD NEW [cmake flags]" >&2; exit 2; }
top=$(cd "$(dirname "$0")/../.." && pwd)
old=$(git -C "$top" rev-parse --verify "$1^{commit}")
new=$(git -C "$top" rev-parse --verify "$2^{commit}")
except=
[ -z "${EXCEPT:-}" ] || except=$(git -C "$top" rev-parse --verify "$EXCEPT^{commit}")
shift 2
threads=${THREADS:-2} jobs=${JOBS:-2}
work=$(mktemp -d)
leave() {
    for side in old new and; do
        git -C "$top" worktree remove --force "$work/$side" 2>/dev/null || true
    done
    if [ "${KEEP:-}" = 1 ]; then echo "kept: $work"; else rm -rf "$work"; fi
}
trap leave EXIT
trap 'exit 130' INT TERM

sides="old new${except:+ and}" and=$old
for side in $sides; do
    eval "commit=\$$side"
    git -C "$top" worktree add -q --detach "$work/$side" "$commit"
    [ $side != and ] || git -C "$top" show "$except" -- app attention model sched | git -C "$work/and" apply -3 ||
        { echo "$except cannot be laid upon $old" >&2; exit 1; }
    cmake -S "$work/$side" -B "$work/build-$side" -DDITGEN_TESTS=OFF "$@" >"$work/$side.log" 2>&1 &&
        cmake --build "$work/build-$side" -j "$jobs" >>"$work/$side.log" 2>&1 ||
        { tail -n 20 "$work/$side.log" >&2; echo "$side ($commit) does not build" >&2; exit 1; }
done

# name, then flags; a case that neither commit knows is a mistake here, so it fails
cases='
dense        --size 128x128 --frames 9 --steps 4 --solver unipc
wide         --size 256x96 --frames 13 --steps 2 --solver euler
one-frame    --size 192x192 --frames 1 --steps 5 --solver dpmpp
window       --size 160x160 --frames 17 --steps 3 --attention window --window-tiles 1
turbo        --size 96x96 --frames 5 --turbo
long-text    --size 96x64 --frames 5 --steps 3 --long-text --guidance-scale 1
'
prompt='a rocket flies up in outer space'
bad=0
run() { # side, file of latents or empty, output, flags
    side=$1 latents=$2 out=$3
    shift 3
    "$work/build-$side/app/ditgen" "$prompt" -q -y --seed 11 -t "$threads" -o "$out" ${latents:+--save-latents "$latents"} "$@" >"$work/run.log" 2>&1 ||
        { echo "$side: ditgen $* failed: $(tail -n 1 "$work/run.log")" >&2; exit 1; }
}
frames_hash() { # of a folder of PNG frames, whose settings lie beside them
    cat "$1"/*.png | sha256sum | cut -c 1-16
}
# the data of a .safetensors file: its header may gain keys
latents_hash() {
    n=$(od -An -t u8 -N 8 "$1" | tr -d ' ')
    tail -c "+$((n + 9))" "$1" | sha256sum | cut -c 1-16
}
row() { # name, hash of old, hash of new, hash of old with EXCEPT when these differ
    if [ "$2" = "$3" ]; then
        same=same
    elif [ "$3" = "${4:-}" ]; then
        same="by $(git -C "$top" rev-parse --short "$except")" meant=1
    else
        same=DIFFERS bad=1
    fi
    printf '%-28s %s  %s  %s\n' "$1" "$2" "$3" "$same"
}
meant=0
echo "old $old"
echo "new $new"
[ -z "$except" ] || echo "by  $(git -C "$top" log -1 --format='%H %s' "$except")"
"$work/build-new/app/ditgen" --version
for precision in fp32 bf16; do
    while read -r name flags; do
        [ -n "$name" ] || continue
        for side in old new; do
            # shellcheck disable=SC2086 # flags are words
            rm -rf "$work/frames-$side"
            run $side "" "$work/frames-$side/" --precision $precision $flags
        done
        a=$(frames_hash "$work/frames-old") b=$(frames_hash "$work/frames-new") c=
        if [ -n "$except" ] && [ "$a" != "$b" ]; then
            rm -rf "$work/frames-and"
            # shellcheck disable=SC2086
            run and "" "$work/frames-and/" --precision $precision $flags
            c=$(frames_hash "$work/frames-and")
        fi
        row "$name $precision" "$a" "$b" "$c"
    done <<END
$cases
END
done
for solver in $("$work/build-old/app/ditgen" list solvers | sed -n 's/^  *\([a-z][a-z0-9_-]*\) .*/\1/p'); do
    for steps in 1 2 3 5 8 13; do
        for side in old new; do
            run $side "$work/$side.safetensors" "$work/$side.y4m" --precision fp32 --size 64x64 --frames 5 --solver "$solver" --steps $steps
        done
        row "$solver, $steps steps" "$(latents_hash "$work/old.safetensors")" "$(latents_hash "$work/new.safetensors")"
    done
done
if [ $bad = 1 ]; then
    echo "some differ"
elif [ $meant = 1 ]; then
    echo "all the same, but for what $(git -C "$top" rev-parse --short "$except") alone changes"
else
    echo "all the same"
fi
exit $bad
