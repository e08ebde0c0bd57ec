# Ends that come from outside: Ctrl-C, a full disk.
. "$(dirname "$0")/lib.sh"
built_in

# Ctrl-C while steps run: code 6, one sentence, nothing left behind
mkdir c
for s in INT TERM INT INT INT; do # often: a signal must not depend on what code it meets
    : >"$T/.err"
    # a shell's background children ignore SIGINT: env puts the default back where it can
    env --default-signal=INT "$DITGEN" x --size 128x128 --frames 17 --steps 500 -t 1 -s 1 -o c/o.y4m </dev/null >"$T/.out" 2>"$T/.err" &
    pid=$!
    for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do
        grep -qs "^step" "$T/.err" && break
        sleep 0.5
    done
    sleep 0.2
    kill -$s $pid
    wait $pid
    code=$?
    done=$((done + 1))
    [ $code = 6 ] || bad "SIG$s: exit code $code, wanted 6"
    said "cancelled"
    [ -z "$(ls -A c)" ] || bad "SIG$s left $(ls -A c)"
done

# a full disk: code 4, nothing under the final name
if [ "$(id -u)" = 0 ] && mkdir full && mount -t tmpfs -o size=16k tmpfs full 2>/dev/null; then
    run 4 x $TINY -s 1 --size 64x64 --frames 9 -q -o full/o.y4m
    said "full/o.y4m"
    [ -e full/o.y4m ] && bad "a clip on a full disk"
    [ "$LIBAV" = 1 ] && { head -c 15000 /dev/zero >full/fill; run 4 x $TINY -s 1 --size 64x64 --frames 9 -q -crf 0 -o full/o.mp4; }
    [ -e full/o.mp4 ] && bad "a clip on a full disk"
    rm -f full/fill
    mkdir full/f
    run 4 x $TINY -s 1 --size 128x128 --frames 9 -q -o full/f/
    [ -z "$(ls -A full/f)" ] || bad "PNG frames left on a full disk: $(ls -A full/f)"
    umount full
else
    echo "skipped: a full disk wants root and a tmpfs"
fi
if [ -e /dev/full ]; then
    "$DITGEN" x $TINY -s 1 -q -o - >/dev/full 2>"$T/.err"
    code=$?
    done=$((done + 1))
    [ $code = 4 ] || bad "-o - to a full device: exit code $code, wanted 4"
fi
finish
