# Sample prompts become clips of every kind that play: size, count, rate, pixel format, settings.
. "$(dirname "$0")/lib.sh"

# every sample prompt, each its own clip
n=0
cat "$SOURCE"/assets/prompts/*.txt | grep . | sort -u >prompts # some stand in several files
while IFS= read -r p; do
    n=$((n + 1))
    run 0 "$p" --size 32x32 --frames 1 --steps 1 -t 1 -s 1 -o "p$n.y4m" && info "p$n.y4m" "frames 1" &&
        carries "p$n.y4m" "prompt = \"$p\""
done <prompts
[ "$n" -ge 4 ] || bad "only $n sample prompts"
[ "$(for f in p*.y4m; do "$CLIP_INFO" $f | grep '^rgb'; done | sort -u | wc -l)" = "$n" ] || bad "two prompts give the same clip"
prompt=$(head -n 1 prompts)

fps=$("$DITGEN" --plan --progress json </dev/null | sed -n 's/.*"fps":\([0-9]*\),.*/\1/p')
run 0 "$prompt" $TINY -s 1 -o a.y4m && said "seed 1" && said "tokens"
info a.y4m "size 32x32"
info a.y4m "frames 5"
info a.y4m "fps $fps/1"
carries a.y4m "seed = 1"
carries a.y4m "steps = 2"

"$CLIP_INFO" a.y4m settings | grep -qE '^model = .*/' && bad "the stored settings hold a path"
"$CLIP_INFO" a.y4m settings | grep -qE "$(date +%Y)-|^threads" && bad "the stored settings hold a date or threads"

# same seed, same bytes; another seed, another clip; threads change nothing
run 0 "$prompt" $TINY -s 1 -o b.y4m && same a.y4m b.y4m
run 0 "$prompt" $TINY -s 2 -o c.y4m && differ a.y4m c.y4m
run 0 "$prompt" $TINY --size 64x64 -s 1 -o t1.y4m
for t in 2 3 8; do
    run 0 "$prompt" $TINY --size 64x64 -t $t -s 1 -o t$t.y4m && same t1.y4m t$t.y4m
done
run 0 -p "something else" $TINY -s 1 -o e.y4m && differ a.y4m e.y4m

# only the low 32 bits of a seed matter to the noise, as in the reference, but the seed is kept whole
run 0 "$prompt" $TINY -s 18446744073709551615 -o f.y4m && carries f.y4m "seed = 18446744073709551615"

# each solver, its own clip
for s in $("$DITGEN" list solvers | awk 'NR > 1 { print $1 }'); do
    run 0 "$prompt" $TINY -s 1 --solver "$s" -o "s-$s.y4m" && info "s-$s.y4m" "frames 5"
    [ "$s" = unipc ] && same a.y4m s-unipc.y4m
    [ "$s" = unipc ] || differ a.y4m "s-$s.y4m"
done

# other noise levels and other rounding are other clips; the long form of the text is the same clip
run 0 "$prompt" $TINY -s 1 --compat diffusers-0.36 -o g.y4m && differ a.y4m g.y4m
run 0 "$prompt" $TINY -s 1 --compat diffusers-0.37 -o h.y4m && same_frames a.y4m h.y4m
run 0 "$prompt" $TINY -s 1 --compat truncate -o i.y4m && differ a.y4m i.y4m
run 0 "$prompt" $TINY -s 1 --precision fp32 -o a32.y4m && carries a32.y4m "precision = fp32"
run 0 "$prompt" $TINY -s 1 --precision fp32 --long-text -o j.y4m
run 0 compare a32.y4m j.y4m
grep -Eq "identical|PSNR +([6-9][0-9]|inf)" "$T/.out" || bad "--long-text changes the clip: $(cat "$T/.out")"
run 0 "$prompt" $TINY -s 1 --guidance-scale 1 -o k.y4m && differ a.y4m k.y4m
run 0 "$prompt" $TINY -s 1 --precision bf16 -o l.y4m && carries l.y4m "precision = bf16" && differ a32.y4m l.y4m
run 0 "$prompt" $TINY -s 1 --attention dense -y -o a.y4m
grep -q approximate "$T/.err" && bad "dense attention is called approximate"
run 0 "$prompt" $TINY -s 1 --attention window --window-tiles 1 -o m.y4m && carries m.y4m 'attention = "window:tiles=1"'
said approximate
carries m.y4m "[run]" && carries m.y4m 'device = "cpu"'
run 0 rerun m.y4m -y -o m2.y4m && same m.y4m m2.y4m
grep -q "then, .* now" "$T/.err" && bad "rerun of the same says that it differs: $(cat "$T/.err")"
long="--size 32x32 --frames 5 --steps 6 -t 1"
run 0 "$prompt" $long -s 1 --attention resid:density=0,first=1,last=1 -y -o m4.y4m && carries m4.y4m "density = 0.6667"
"$CLIP_INFO" m4.y4m settings | grep -q "^copied-error = 0\.[0-9]" || bad "m4.y4m does not say how far its copies were off"
run 0 rerun m4.y4m --attention dense -y -o m5.y4m && said "attention computed 0.667 of its pairs then, 1 now"
run 0 x --plan $long --attention resid:density=0,first=1,last=1 && printed "computes 0.67 of its pairs, copies 33 % of the calls"
run 0 x --plan $long --attention resid:density=0,first=1,last=1 --cache-mem 0 && printed "layers and branches exact"
run 0 x --plan $TINY --attention window && printed approximate

# PNG frames: a folder, a pattern, one frame
mkdir dir
run 0 "$prompt" $TINY -s 1 -o dir/ && info dir/ "frames 5"
run 0 "$prompt" $TINY -s 1 --frames 1 -o one_%04d.png && info one_%04d.png "frames 1"
[ -f one_0001.png ] || bad "no one_0001.png"
[ -f dir/settings.ini ] || bad "no settings.ini beside the frames"
carries dir/ "seed = 1"

# a pipe: y4m and nothing else on standard output
"$DITGEN" "$prompt" $TINY -s 1 -o - 2>"$T/.err" >pipe.y4m || bad "-o - failed"
same a.y4m pipe.y4m
"$DITGEN" "$prompt" $TINY -s 1 -o - 2>"$T/.err" | head -c 10 >/dev/null # a reader that goes away: no crash

if [ "$LIBAV" = 1 ]; then
    run 0 "$prompt" $TINY -s 1 -o a.mp4
    info a.mp4 "size 32x32"
    info a.mp4 "frames 5"
    info a.mp4 "fps $fps/1"
    info a.mp4 "pix_fmt yuv420p"
    info a.mp4 "codec h264"
    carries a.mp4 "seed = 1"
    run 0 "$prompt" $TINY -s 1 -o b.mp4 && same a.mp4 b.mp4
    run 0 "$prompt" $TINY -s 1 -crf 40 -preset veryfast -pix_fmt yuv444p -o c.mp4 && info c.mp4 "pix_fmt yuv444p" && differ a.mp4 c.mp4
    run 0 "$prompt" $TINY -s 1 --fps 29.97 -o a.mov && info a.mov "fps 30000/1001" && carries a.mov "fps = 29.97"
    run 0 "$prompt" $TINY -s 1 -o a.webm && info a.webm "frames 5" && carries a.webm "seed = 1"
    refuse 2 "nocodec" "$prompt" $TINY -q -s 1 -c:v nocodec -o d.mp4
fi
finish
