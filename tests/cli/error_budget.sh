# --error-budget: what it wants to know, what it refuses, what it says it spent; the same over rerun and resume.
# Blocks of 16 tokens: the smallest clips have something to carry.
. "$(dirname "$0")/lib.sh"
SIZE="--size 64x64 --frames 9 --steps 5 -t 1"
CLIP="$SIZE -s 1 -y -q"
ATTN="--attention resid:block=16"
model m
rm -rf "$M/error-budgets"
F=error-budgets/64x64x9-unipc-5
refuse 2 "there is no $F.ini; make it with 'ditgen calibrate --error-budget -m m --size 64x64 --frames 9 --steps 5'" x -m "$M" $CLIP --error-budget 25dB
refuse 2 "there is no $F-steps.ini" x -m "$M" $CLIP --error-budget good --step-cache budget
refuse 2 "error-budget is '5dB', wanted dB from 10 to 90 as 40dB, or near, good, rough, none" x $CLIP --error-budget 5dB
refuse 2 "--error-budget and --turbo: between 4 steps there is nothing to carry" x -m "$M" $CLIP --turbo --steps 4 --error-budget good
refuse 2 "or take --step-cache budget" x -m "$M" $CLIP --error-budget good --step-cache easycache
refuse 2 "haste and resid both say when a plan stands" x -m "$M" $CLIP --error-budget good --attention haste
refuse 2 "resid:every=3" x -m "$M" $CLIP --error-budget good --attention resid:every=3
refuse 2 "density=0 copies outputs" x -m "$M" $CLIP --error-budget good --attention resid:density=0
refuse 2 "set one, as --error-budget 40dB" x -m "$M" $CLIP --attention resid:every=budget
refuse 2 "set one, as --error-budget 40dB" x -m "$M" $CLIP --step-cache budget
refuse 2 "no clip lost anything" calibrate --error-budget -m "$M" --size 32x32 --frames 5 --steps 4 -t 1 --prompts 1 -q

calibrated() { # FILE: sets low, just above the least that it may be asked for, and high
    printed "$1"
    said "dB are kept back, so that nine in ten prompts hold it"
    low=$(awk '$1 == "least" { print ($3 > 10 ? int($3) + 1 : 10) }' "$1")
    high=$(awk '$1 == "most" { print int($3) }' "$1")
    [ "$low" -lt "$high" ] || bad "calibrated from $low to $high dB"
}
run 0 calibrate --error-budget -m "$M" $SIZE --prompts 1 $ATTN
calibrated "$M/$F.ini"
run 0 x -m "$M" $SIZE -s 1 -y -o low.y4m $ATTN --error-budget $low
said "error budget $low.0 dB: about"
said "of what might be carried"
run 0 x -m "$M" $CLIP -o high.y4m $ATTN --error-budget ${high}dB
differ low.y4m high.y4m
carries high.y4m "error-budget = \"${high}dB\""
"$CLIP_INFO" high.y4m settings | grep -q '^budget-estimate = ' || bad "no estimate is stored"
run 0 x -m "$M" $CLIP $ATTN --error-budget $low --plan
printed "attention  computes 0."
run 0 rerun high.y4m -m "$M" -y -q -o again.y4m -t 2
run 0 compare high.y4m again.y4m
printed identical
refuse 2 "is outside of what was calibrated here" x -m "$M" $CLIP $ATTN --error-budget 89
refuse 2 "the calibration is of --guidance-scale 4, this is 3" x -m "$M" $CLIP $ATTN --error-budget $low --guidance-scale 3
refuse 2 "the calibration is of another --attention" x -m "$M" $CLIP --error-budget $low
refuse 2 "there is no error-budgets/64x64x9-euler-5.ini" x -m "$M" $CLIP $ATTN --error-budget $low --solver euler
printf 'attention = resid:block=16\nerror-budget = %s\n' $low >low.ini
run 0 tune -m "$M" $SIZE -q --check low.ini --verify 1 --log t.jsonl
printed "error budget $low dB: held by"

# broken off and gone on with: what it spent is remembered
"$DITGEN" x -m "$M" $SIZE -s 1 -o part.y4m $ATTN --error-budget $low --state-every 0.0001 </dev/null >.out 2>.err &
pid=$!
for i in $(seq 600); do
    grep -q "^step 4" .err && break
    sleep 0.01
done
kill -TERM $pid
wait $pid
[ -e part.y4m ] || run 0 resume part.y4m -q
run 0 compare low.y4m part.y4m
printed identical

# whole steps instead
run 0 calibrate --error-budget -m "$M" $SIZE --prompts 1 --step-cache budget
calibrated "$M/$F-steps.ini"
run 0 x -m "$M" $SIZE -s 1 -y -o steps.y4m --error-budget $low --step-cache budget
said "error budget $low.0 dB: about"
carries steps.y4m 'step-cache = "budget:first=2,last=0"'
carries steps.y4m 'attention = "dense"'
run 0 x -m "$M" $CLIP --error-budget $low --step-cache budget --plan
printed "step cache budget:first=2,last=0: computes"

# other weights, and no calibration
sed 's/^mark = .*/mark = 1/' "$M/$F.ini" >new && mv new "$M/$F.ini"
refuse 2 "the calibration is of other weights" x -m "$M" $CLIP $ATTN --error-budget $low
echo "[of]" >"$M/$F.ini"
refuse 3 "calibrates no error budget" x -m "$M" $CLIP $ATTN --error-budget $low
finish
