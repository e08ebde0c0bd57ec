# Words for the command's tests. Each script sources this and ends with `finish`.
# Wanted from CMake: DITGEN SMALL_ASSETS CLIP_INFO SOURCE BUILD LIBAV ...
set -u
DITGEN_ASSETS=$SMALL_ASSETS # by small_assets.c; `built_in` is the word for the model that comes with ditgen
export DITGEN_ASSETS
T=$(mktemp -d "${TMPDIR:-/tmp}/ditgen-cli-XXXXXX") || exit 1
trap 'rm -rf "$T"' EXIT
cd "$T" || exit 1
failed=0 done=0
TINY="--size 32x32 --frames 5 --steps 2 -t 1"

built_in() { # for scripts that ask for its clips, or break into a run that has to last
    unset DITGEN_ASSETS
}
bad() { # sentence
    failed=$((failed + 1))
    echo "FAILED: $*" >&2
    [ -s "$T/.err" ] && sed 's/^/    stderr: /' "$T/.err" | head -n 12 >&2
}
# run CODE args...: runs ditgen, standard output in .out and error in .err, checks the exit code
run() {
    want=$1
    shift
    done=$((done + 1))
    "$DITGEN" "$@" >"$T/.out" 2>"$T/.err" </dev/null
    got=$?
    [ "$got" = "$want" ] || bad "ditgen $*: exit code $got, wanted $want"
    [ "$got" = "$want" ]
}
# refuse CODE WORDS args...: one line that holds WORDS, that code, and no file left in the folder
refuse() {
    code=$1 words=$2
    shift 2
    before=$(ls -A | grep -v '^\.\(out\|err\)$')
    run "$code" "$@"
    [ "$(wc -l <"$T/.err")" = 1 ] || bad "ditgen $*: $(wc -l <"$T/.err") lines, wanted one"
    grep -qF -e "$words" "$T/.err" || bad "ditgen $*: the message does not hold '$words'"
    [ "$(ls -A | grep -v '^\.\(out\|err\)$')" = "$before" ] || bad "ditgen $*: left a file: $(ls -A)"
}
said() { # WORDS: the last run's standard error holds them
    done=$((done + 1))
    grep -qF -e "$1" "$T/.err" || bad "standard error does not hold '$1'"
}
printed() { # WORDS: the last run's standard output holds them
    done=$((done + 1))
    grep -qF -e "$1" "$T/.out" || bad "standard output does not hold '$1'"
}
info() { # CLIP LINE: clip_info says so
    done=$((done + 1))
    "$CLIP_INFO" "$1" >"$T/.info" 2>"$T/.info.err" || { bad "$1 cannot be read back"; return; }
    grep -qx -e "$2" "$T/.info" || bad "$1: wanted '$2', is $(tr '\n' ',' <"$T/.info")"
}
carries() { # CLIP LINE: its stored settings have the line
    done=$((done + 1))
    "$CLIP_INFO" "$1" settings >"$T/.info" 2>/dev/null
    grep -qxF -e "$2" "$T/.info" || bad "$1: its settings lack '$2': $(tr '\n' ',' <"$T/.info")"
}
same() {
    done=$((done + 1))
    cmp -s "$1" "$2" || bad "$1 and $2 differ"
}
differ() {
    done=$((done + 1))
    if cmp -s "$1" "$2"; then bad "$1 and $2 are the same"; fi
}
same_frames() {
    done=$((done + 1))
    [ "$("$CLIP_INFO" "$1" | grep '^rgb')" = "$("$CLIP_INFO" "$2" | grep '^rgb')" ] || bad "the frames of $1 and $2 differ"
}
# model NAME: a copy of the model in use, by links; edit FILE 's/sed/script/' changes one file of the copy
# named last
model() {
    M="$T/$1"
    cp -rsL "${DITGEN_ASSETS:-$SOURCE/assets}/emoji" "$M"
}
edit() {
    from=${DITGEN_ASSETS:-$SOURCE/assets}/emoji/$1
    sed "$2" "$from" >"$T/.edit"
    cmp -s "$T/.edit" "$from" && bad "the edit '$2' changes nothing in $1"
    rm -f "$M/$1"
    cp "$T/.edit" "$M/$1"
}
finish() {
    echo "$done checks, $failed failed"
    [ "$failed" = 0 ] && [ "$done" -gt 0 ]
    exit $?
}
