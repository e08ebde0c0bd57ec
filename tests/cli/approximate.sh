# What an approximate run says of itself: one line without -v, a line a step, a line a layer.
. "$(dirname "$0")/lib.sh"
lines() { grep -c -e "$1" "$T/.err"; }
count() { # N PATTERN: so many lines of standard error
    done=$((done + 1))
    [ "$(lines "$2")" = "$1" ] || bad "$(lines "$2") lines of '$2', wanted $1"
}
CLIP="--size 64x64 --frames 9 --steps 5 -t 1 -s 1 -y -o a.y4m"

run 0 x $CLIP
count 0 approximate
run 0 x $CLIP --attention resid:every=2,density=.3,block=16
count 1 '^approximate: computed 0\.[0-9]* of attention.s pairs; sampled error [0-9.e-]* (relative L1 of [0-9]* rows); 5 steps took as long as about [0-9]* exact ones (an estimate)$'
run 0 x $CLIP --attention resid:density=0,every=2
count 1 '^approximate: .*% of calls copies; sampled change'
run 0 x $CLIP --attention resid:density=0,every=2 -q
count 0 .
run 0 x $CLIP --attention clear:block=16,first=0,reach=1x1x1 --progress json
count 1 '^{"event":"approximate","computed":0\.[0-9]*,.*"steps":5,"reused_steps":0,"codes":0\.0000,"exact_steps_estimate":[0-9.]*}$'
run 0 x $CLIP --attention clear:block=16,first=0,reach=1x1x1 -v
count 5 '^step [1-5] of 5: [0-9.]* s; attention computed 0\.[0-9]* of its pairs, relative L1'
count 0 'layer [0-9]*, branch'
run 0 x $CLIP --attention clear:block=16,first=0,reach=1x1x1 -vv
layers=$(sed -n 's/.*"num_layers": *\([0-9]*\).*/\1/p' "$DITGEN_ASSETS/emoji/transformer/config.json")
count $((5 * layers * 2)) '^attention: step [1-5], layer [0-9]*, branch [01]: computed 0\.[0-9]* of its pairs'

# four steps: nothing to carry from one to the next
run 0 x --size 64x64 --frames 9 -t 1 -s 1 -y -o a.y4m --turbo --attention resid
said "warning: --turbo makes 4 steps that differ too much for anything to be carried"
said "use --attention dense"
run 0 x --size 64x64 --frames 9 -t 1 -s 1 -y -o a.y4m --turbo --attention window
count 0 'differ too much'

# whole steps left out: told before, while and after, in the clip, and by rerun
run 0 x $CLIP --step-cache firstblock:threshold=9
count 1 '^approximate: computed 1.00 of attention.s pairs; [1-4] steps left out; 5 steps took as long'
carries a.y4m 'step-cache = "firstblock:threshold=9,first=0.1,last=1"'
carries a.y4m 'reused-steps = 3'
run 0 rerun a.y4m -y -o b.y4m
same a.y4m b.y4m
run 0 x $CLIP --step-cache firstblock:threshold=9 -v
count 3 '^step [2-4] of 5: [0-9.]* s; left out by the step cache$'
run 0 x $CLIP --step-cache none
count 0 approximate
run 0 x $CLIP --step-cache firstblock --plan
grep -q '^step cache firstblock:threshold=0.05,first=0.1,last=1: computes 2 to 5 of 5 steps; keeps ' "$T/.out" || bad "--plan says nothing of the step cache"
run 0 x $CLIP --step-cache firstblock --attention resid
said "warning: step cache firstblock leaves out steps in which attention resid"
run 0 x --size 64x64 --frames 9 -t 1 -s 1 -y -o a.y4m --turbo --step-cache easycache
said "as easycache does"
refuse 2 "there is no step cache 'tea'; there are none, teacache" x $CLIP --step-cache tea
refuse 2 "step cache easycache has no option 'x'; it has threshold, first, last" x $CLIP --step-cache easycache:x=1
run 0 list caches -v
printed "easycache:threshold=0.05"
finish
