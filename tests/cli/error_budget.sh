# --error-budget: what it wants to know, what it refuses, what it says it spent; the same over resume and rerun.
. "$(dirname "$0")/lib.sh"
SIZE="--size 96x96 --frames 17 --steps 8 -t 1"
CLIP="$SIZE -s 1 -y -o a.y4m"
model m
rm -rf "$M/error-budgets"
refuse 2 "there is no error-budgets/96x96x17-unipc-8.ini; make it with 'ditgen calibrate --error-budget -m m --size 96x96 --frames 17 --steps 8'" x -m "$M" $CLIP --error-budget 25dB
refuse 2 "error-budget is '5dB', wanted dB from 10 to 90" x $CLIP --error-budget 5dB
refuse 2 "wanted dB from 10 to 90 as 40dB, or near, good, rough" x $CLIP --error-budget best
refuse 2 "--error-budget and --turbo: between 4 steps there is nothing to carry" x -m "$M" $SIZE --turbo --steps 4 --error-budget good
refuse 2 "--error-budget and --step-cache" x -m "$M" $CLIP --error-budget good --step-cache easycache
refuse 2 "haste and resid both say when a plan stands" x -m "$M" $CLIP --error-budget good --attention haste
refuse 2 "resid:every=3" x -m "$M" $CLIP --error-budget good --attention resid:every=3
refuse 2 "density=0 copies outputs" x -m "$M" $CLIP --error-budget good --attention resid:density=0
refuse 2 "set one, as --error-budget 40dB" x -m "$M" $CLIP --attention resid:every=budget
refuse 2 "2 steps leave nothing to carry" calibrate --error-budget -m "$M" --size 96x96 --frames 17 --steps 2 -t 1 --prompts 1 -q

refuse 2 "no clip lost anything" calibrate --error-budget -m "$M" --size 32x32 --frames 5 --steps 4 -t 1 --prompts 1 -q

run 0 calibrate --error-budget -m "$M" $SIZE --prompts 1
f="$M/error-budgets/96x96x17-unipc-8.ini"
printed "$f"
said "which is kept back"
least=$(sed -n 's/^least = \([0-9]*\).*/\1/p' "$f") most=$(sed -n 's/^most = \([0-9]*\).*/\1/p' "$f")
low=$((least + 2)) high=$((most - 1))
[ "$low" -lt "$high" ] || bad "calibrated from $least to $most dB"
run 0 x -m "$M" $SIZE -s 1 -y -o low.y4m --error-budget $low
said "error budget $low.0 dB: about"
run 0 x -m "$M" $SIZE -s 1 -y -o high.y4m --error-budget ${high}dB
said "error budget $high.0 dB: about"
run 0 x -m "$M" $SIZE -s 1 -y -o exact.y4m
differ low.y4m high.y4m
differ high.y4m exact.y4m
db() { "$DITGEN" compare exact.y4m "$1" 2>/dev/null | sed -n 's/^PSNR \([0-9]*\).*/\1/p'; }
done=$((done + 1))
[ "$(db low.y4m)" -lt "$(db high.y4m)" ] || bad "more budget kept less: $(db low.y4m), $(db high.y4m) dB"
carries high.y4m "error-budget = \"${high}dB\""
"$CLIP_INFO" high.y4m settings | grep -q '^budget-estimate = ' || bad "no estimate is stored"
run 0 x -m "$M" $CLIP --error-budget $low --plan
printed "attention  computes 0."
run 0 rerun high.y4m -m "$M" -y -o again.y4m -t 2
same high.y4m again.y4m
echo "error-budget = $low" >low.ini
run 0 tune -m "$M" $SIZE -q --check low.ini --verify 1 --log t.jsonl
printed "error budget $low dB: held by"
refuse 2 "is outside of what was calibrated here" x -m "$M" $CLIP --error-budget 89
refuse 2 "the calibration is of --guidance-scale 4, this is 3" x -m "$M" $CLIP --error-budget $low --guidance-scale 3
refuse 2 "the calibration is of another --attention" x -m "$M" $CLIP --error-budget $low --attention resid:density=.2
refuse 2 "there is no error-budgets/96x96x17-euler-8.ini" x -m "$M" $CLIP --error-budget $low --solver euler

# broken off and gone on with: what it spent is remembered
run 0 x -m "$M" $SIZE -s 3 -q -o whole.y4m --error-budget $low
: >"$T/.err"
env --default-signal=INT "$DITGEN" x -m "$M" $SIZE -s 3 -o part.y4m --error-budget $low --state-every 0.0001 </dev/null >"$T/.out" 2>"$T/.err" &
pid=$!
for i in $(seq 600); do
    grep -q "^step 5" "$T/.err" && break
    sleep 0.02
done
kill -INT $pid
wait $pid
code=$?
done=$((done + 1))
if [ $code = 6 ]; then
    run 0 resume part.y4m
    said "error budget $low.0 dB"
else
    [ $code = 0 ] || bad "broken off: code $code"
fi
run 0 compare whole.y4m part.y4m # what is stored of the run is of its last part
printed "identical"

# other weights
sed 's/^mark = .*/mark = 1/' "$f" >"$f.new" && mv "$f.new" "$f"
refuse 2 "the calibration is of other weights" x -m "$M" $CLIP --error-budget $low
echo "[of]" >"$f"
refuse 3 "calibrates no error budget" x -m "$M" $CLIP --error-budget $low
finish
