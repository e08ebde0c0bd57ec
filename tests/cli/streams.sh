# Standard streams in any state: what is written is the same, talk never goes into a clip, and what
# could not be printed is not called done.
. "$(dirname "$0")/lib.sh"
ONE="--size 32x32 --frames 1 --steps 1 -t 1 -s 1"
STATES="closed full deaf slow:$T/.slow"

# with IN OUT ERR CODE args...
with() {
    in=$1 out=$2 err=$3 want=$4
    shift 4
    done=$((done + 1))
    "$WITH_STREAMS" $in $out $err "$DITGEN" "$@"
    got=$?
    [ $got = "$want" ] || bad "in $in, out $out, err $err: ditgen $*: exit code $got, wanted $want"
}

# every combination of the three, into a file
: >"$T/.err"
run 0 x $ONE -q -o ref.y4m
for i in closed empty; do
    for o in $STATES; do
        for e in $STATES; do
            with $i $o $e 0 x $ONE -y -o a.y4m
            same ref.y4m a.y4m
        done
    done
done
# every writer, all three closed: the first file opened would be number 0, the second 1
list="a.y4m frames/"
[ "$LIBAV" = 1 ] && list="$list a.mp4 a.mov a.webm"
for f in $list; do
    rm -rf ref.d && mkdir ref.d
    run 0 x $ONE -q -o ref.d/$f
    rm -rf out.d && mkdir out.d
    with closed closed closed 0 x $ONE -v --progress json -o out.d/$f --save-latents out.d/l --dump-config out.d/c
    rm -f out.d/l out.d/c
    done=$((done + 1))
    diff -r ref.d out.d >/dev/null || bad "$f differs with all streams closed"
done
# to standard output itself
"$DITGEN" x $ONE -q -o - </dev/null | cat >ref.piped
for s in "null closed" "closed slow:$T/.slow" "empty full"; do
    i=${s% *} e=${s#* }
    with $i slow:"$T/piped" $e 0 x $ONE -o -
    same ref.piped piped
    for o in closed full deaf; do
        with $i $o $e 4 x $ONE -o - 2>/dev/null
    done
done
# text that cannot be written is code 4; that is whole through a slow pipe
"$DITGEN" inspect >text
for v in "list" "inspect" "--help" "--version" "x --plan $ONE"; do
    for o in full deaf closed; do
        with null $o null 4 $v
    done
    with null slow:"$T/.slow" null 0 $v
done
"$WITH_STREAMS" null slow:"$T/slow" null "$DITGEN" inspect
same text slow
# a prompt by a pipe that does not block and has no data is no prompt, not an error of reading
with empty null keep 2 2>"$T/.err"
said "standard input is empty"
finish
