# Runs that are broken off go on, to the same bytes: killed at random instants (KILLS of them, 100 by
# hand: KILLS=100 in front), cancelled, on a full disk; and latents become clips by themselves.
. "$(dirname "$0")/lib.sh"
KILLS=${KILLS:-4}
CLIP="x --size 64x64 --frames 9 --steps 6 -t 1 -s 1"
EVERY="--state-every 0.0001"
suffix=y4m
[ "$LIBAV" = 1 ] && suffix=mp4

begin=$(date +%s%N)
run 0 $CLIP -q -o ref.$suffix
took=$((($(date +%s%N) - begin) / 1000000)) # ms
[ -e .ditgen ] && bad "a finished run left its state"
mkdir k
cd k || exit 1
for i in $(seq "$KILLS"); do
    wait_ms=$(awk -v i="$i" -v t="$took" 'BEGIN { srand(i); printf "%d", rand() * t * 1.1 }')
    "$DITGEN" $CLIP $EVERY -q -o c.$suffix </dev/null 2>"$T/.err" &
    pid=$!
    sleep "$(awk -v m="$wait_ms" 'BEGIN { printf "%.3f", m / 1000 }')"
    kill -9 $pid 2>/dev/null
    wait $pid 2>/dev/null
    done=$((done + 1))
    # by resume, or by the same command again
    if [ -e .ditgen/c.$suffix.state ] && [ $((i % 2)) = 0 ]; then
        "$DITGEN" resume -q </dev/null 2>"$T/.err" || bad "resume after $wait_ms ms: code $?"
    elif [ ! -e c.$suffix ]; then
        "$DITGEN" $CLIP $EVERY -q -o c.$suffix </dev/null 2>"$T/.err" || bad "again after $wait_ms ms: code $?"
    elif [ -e .ditgen ]; then
        "$DITGEN" resume -q </dev/null 2>"$T/.err" || bad "resume of a complete clip: code $?"
    fi
    cmp -s ../ref.$suffix c.$suffix || bad "killed after $wait_ms of $took ms: other bytes"
    rm -f c.$suffix
    [ -z "$(ls -A)" ] || bad "killed after $wait_ms ms: left $(ls -A)"
    rm -rf .ditgen*
done
cd "$T" || exit 1

# broken off by a signal after a state: told how to go on; every signal that ends programs
run_until_state() { # SIGNAL OUTPUT
    : >"$T/.err"
    env --default-signal=INT,HUP,QUIT,XCPU "$DITGEN" $CLIP --steps 40 $EVERY -o "$2" </dev/null >"$T/.out" 2>"$T/.err" &
    pid=$!
    for i in $(seq 600); do
        grep -q "^step 2" "$T/.err" && break
        sleep 0.1
    done
    kill -"$1" $pid
    wait $pid
    code=$?
    done=$((done + 1))
    [ $code = 6 ] || bad "SIG$1: exit code $code, wanted 6"
    said "'ditgen resume $2' goes on after step"
    [ -z "$(ls -A | grep '\.part$')" ] || bad "SIG$1 left $(ls -A)"
}
run_until_state TERM s.y4m
for s in HUP QUIT XCPU; do run_until_state $s other-$s.y4m; done
refuse 2 "name one" resume
rm -f .ditgen/other-*
refuse 2 "another clip" resume s.y4m -s 2 -q
refuse 3 "no state of nothing.y4m" resume nothing.y4m
run 0 resume s.y4m
said "going on after step"
grep -q "^step 1/" "$T/.err" && bad "a step that was done is done again"
run 0 $CLIP --steps 40 -q -o whole.y4m
same whole.y4m s.y4m
[ -e .ditgen ] && bad "resume left the state: $(ls .ditgen)"

# no name and no seed given: the state's are taken
: >"$T/.err"
"$DITGEN" x --size 64x64 --frames 5 --steps 40 -t 1 $EVERY </dev/null 2>"$T/.err" &
pid=$!
for i in $(seq 600); do
    grep -q "^step 2" "$T/.err" && break
    sleep 0.1
done
kill -9 $pid
wait $pid 2>/dev/null
run 0 x --size 64x64 --frames 5 --steps 40 -t 1
said "going on after step"
[ "$(ls x-*.* | wc -l)" = 1 ] || bad "not one clip: $(ls)"

# a state of other settings is told of and not taken
mkdir .ditgen
echo broken >.ditgen/b.y4m.state
refuse 3 "no safetensors file" decode .ditgen/b.y4m.state -o n.y4m
refuse 3 "no safetensors file" resume
run 0 x $TINY -s 1 -o b.y4m
[ -e .ditgen ] && bad "a state that nobody can read stays"

# latents become the clip
run 0 $CLIP -q -o l.$suffix --save-latents l.safetensors
run 0 decode l.safetensors -o d.$suffix
same_frames l.$suffix d.$suffix # what the run did is stored with its clip alone
model decoder_only
rm -r "$M/transformer/diffusion_pytorch_model.safetensors" "$M/text_encoder/model.safetensors"
run 0 decode l.safetensors -m "$M" -q -o d2.y4m
same_frames d2.y4m d2.y4m
refuse 2 "only decoding is left" decode l.safetensors -o n.y4m --plan
refuse 2 "-o CLIP" decode l.safetensors
refuse 2 "one file" decode -o n.y4m
refuse 3 "no safetensors file" decode ref.$suffix -o n.y4m

# a full disk costs the state and not the run
mkdir .ditgen
if [ "$(id -u)" = 0 ] && mount -t tmpfs -o size=4k tmpfs .ditgen 2>/dev/null; then
    run 0 $CLIP $EVERY -o full.$suffix
    said "disk full"
    same ref.$suffix full.$suffix
    umount .ditgen
else
    echo "skipped: a full disk wants root and a tmpfs"
fi
rm -rf .ditgen
: >.ditgen # no folder can be made
run 0 $CLIP $EVERY -o nostate.$suffix
said "the run goes on, without this state"
same ref.$suffix nostate.$suffix
[ "$(grep -c "without this state" "$T/.err")" = 1 ] || bad "told more than once"
finish
