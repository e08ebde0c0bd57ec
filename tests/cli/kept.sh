# What is finished is kept: clips whose name was taken, clips whose latents could not be written, and
# what is said of them.
. "$(dirname "$0")/lib.sh"
built_in

# start args...: in the background; pid in $pid
start() {
    : >"$T/.err"
    env --default-signal=INT "$DITGEN" "$@" </dev/null >"$T/.out" 2>"$T/.err" &
    pid=$!
}
until_there() { # WORDS in standard error, or FILE: waits at most 60 s
    for i in $(seq 600); do
        grep -qs -e "$1" "$T/.err" && return
        [ -e "$1" ] && return
        sleep 0.1
    done
    bad "'$1' never came"
}
ended() { # CODE
    wait $pid
    code=$?
    done=$((done + 1))
    [ $code = "$1" ] || bad "exit code $code, wanted $1"
}

# the name of the latents is taken meanwhile: latents beside, clip all the same
start x --size 64x64 --frames 5 --steps 12 -t 1 -s 1 -o a.y4m --save-latents l.safetensors
until_there "^step"
echo mine >l.safetensors
ended 4
said "latents kept as l-1.safetensors"
said "the clip is a.y4m"
[ "$(cat l.safetensors)" = mine ] || bad "l.safetensors was destroyed"
info a.y4m "frames 5"
run 0 compare l-1.safetensors l-1.safetensors

# no folder for the latents any more: the clip all the same
mkdir sub
start x --size 64x64 --frames 5 --steps 12 -t 1 -s 1 -o b.y4m --save-latents sub/l.safetensors
until_there "^step"
rmdir sub
ended 4
said "sub/l.safetensors"
said "the clip is b.y4m"
same a.y4m b.y4m

# with -y a folder takes the clip's name
start x --size 64x64 --frames 5 --steps 12 -t 1 -s 1 -y -o c.y4m
until_there "^step"
mkdir c.y4m
ended 4
said "clip kept as c-1.y4m"
same a.y4m c-1.y4m

# cancelled after the latents were written: they are told of
start x --size 128x128 --frames 33 --steps 1 -t 1 -s 1 -o d.y4m --save-latents d.safetensors
until_there d.safetensors
kill -TERM $pid
ended 6
said "cancelled; the latents are in d.safetensors"
[ -e d.y4m ] && bad "a cancelled clip"

# neither --save-latents nor --dump-config follows a link called NAME.part, or waits on a FIFO
echo precious >victim
ln -s victim e.safetensors.part
mkfifo e.ini.part
run 0 x $TINY -s 1 -q -o e.y4m --save-latents e.safetensors --dump-config e.ini
[ "$(cat victim)" = precious ] || bad "a link was followed"
[ -p e.ini.part ] || bad "the FIFO is gone"

# a file that may not grow: said, and nothing left
for f in big.y4m big/ $([ "$LIBAV" = 1 ] && echo big.mp4); do
    (ulimit -f 1 && exec "$DITGEN" x --size 128x128 --frames 5 --steps 1 -t 1 -s 1 -q -o $f) </dev/null >"$T/.out" 2>"$T/.err"
    code=$?
    done=$((done + 1))
    [ $code = 4 ] || bad "$f with ulimit -f 1: exit code $code, wanted 4"
    said "ulimit -f"
    [ -e $f ] && bad "$f is there"
done

# two runs into one new folder: both clips are there
start x $TINY -s 1 -q -y -o frames/
first=$pid
"$DITGEN" x $TINY -s 2 -q -y -o frames/ 2>"$T/.err2"
wait $first
for f in frames frames-1; do
    [ -e $f ] && { info $f/ "frames 5"; }
done
[ -e frames-1 ] || info frames/ "frames 5" # they did not meet
[ -z "$(ls -A | grep '^\.ditgen-')" ] || bad "parts are left: $(ls -A)"
finish
