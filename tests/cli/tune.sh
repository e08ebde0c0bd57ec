# tune: searches, verifies, writes a profile that can be used and checked; broken off it keeps the best.
. "$(dirname "$0")/lib.sh"
SMALL="--size 32x32 --frames 5 --steps 6 -t 1 -q --quick --search 1 --verify 1 --clock cpu"
run 0 tune --help && printed "--share X"
run 0 tune $SMALL --share 0.95 --log a.jsonl -o a.ini --svg a.svg
printed '| share | dB | worst | SSIM | on the frontier | settings |'
printed '`steps=5` |'
grep -q '^<svg' a.svg && grep -q '</svg>' a.svg || bad "a.svg is no picture"
grep -q '^# searched with, seeds from 7001 on:' a.ini || bad "a.ini lacks what it was searched with"
grep -q '^# verified with, seeds from 9001 on:' a.ini || bad "a.ini lacks what it was verified with"
grep -q 'of exact.s seconds and [0-9.]* dB at 32x32' a.ini || bad "a.ini lacks its figures"
search=$(sed -n '/searched with/,/verified with/p' a.ini | grep '^#   ')
verify=$(sed -n '/verified with/,$p' a.ini | grep '^#   ')
[ -n "$search" ] && [ "$search" != "$verify" ] || bad "searched and verified with the same prompts"
run 0 x --size 32x32 --frames 5 --steps 6 -t 1 -s 1 --config a.ini -o a.y4m
run 0 tune $SMALL --check a.ini --log a.jsonl --resume && printed "| clips |"
refuse 2 "a.ini" tune $SMALL --log b.jsonl -o a.ini
refuse 2 "a.jsonl is there: --resume goes on with it" tune $SMALL --log a.jsonl -o b.ini

grep -q '' .out && printed '| clip | share | dB | estimate |' && printed '| worst |'

# several sizes: one profile by tokens, which each of them is checked with
run 0 tune $SMALL --sizes 32x32x5,48x48x5 --share 0.95 --log s.jsonl -o s.ini
printed '32x32, 5 frames ('
printed '48x48, 5 frames ('
# what each size gets is the clock's choice, here often the same; that what differs goes by tokens: unit/cli/test_tune.c
sed -n '/^\[ditgen\]/,$p' s.ini | grep -q '^[a-z-]* = ' || bad "s.ini sets nothing"
grep -q '32x32, 5 frames, 8 tokens' s.ini && grep -q '48x48, 5 frames, 18 tokens' s.ini || bad "s.ini lacks a size"
grep -q '^solver\|^precision' s.ini && bad "s.ini says what cannot go by tokens"
head -n 1 s.ini | grep -q '^# 32x32, 5 frames: .*; 48x48, 5 frames: ' || bad "s.ini lacks its figures"
run 0 x --size 48x48 --frames 5 --steps 6 -t 1 -s 1 --config s.ini -o s.y4m
run 0 tune $SMALL --check s.ini --sizes 32x32x5,48x48x5 --log s.jsonl --resume
printed '48x48, 5 frames ('
refuse 2 "--sizes is '32x32', wanted WIDTHxHEIGHTxFRAMES" tune --sizes 32x32
refuse 2 "tune takes no --svg with several sizes" tune --sizes 32x32x5,48x48x5 --svg x.svg

# with what is known it is there at once; a target that nothing meets writes no profile and says so
cp a.jsonl c.jsonl
run 0 tune $(echo $SMALL | sed 's/-q //') --share 0.01 --log c.jsonl --resume -o c.ini --json
said "no settings meet the target; no profile was written"
[ ! -e c.ini ] || bad "a profile that meets nothing was written"
python3 -c 'import json, sys; d = json.load(open(sys.argv[1])); sys.exit(0 if d["chosen"] is None and d["frontier"] else 1)' .out 2>/dev/null ||
    { command -v python3 >/dev/null && bad "--json is no object with chosen and frontier"; }

# broken off
"$DITGEN" tune $SMALL --share 0.95 --log d.jsonl -o d.ini >.out 2>.err </dev/null &
pid=$!
until [ "$(wc -l 2>/dev/null <d.jsonl || echo 0)" -ge 8 ]; do sleep 0.1; done
kill -TERM $pid
wait $pid
[ $? = 6 ] || bad "a signal did not end it with code 6"
said "d.jsonl keeps what was made, --resume goes on with it"
[ ! -e d.ini ] || head -n 1 d.ini | grep -q '^# not verified: ' || bad "d.ini does not say that it is not verified"

refuse 2 "--db is '0'" tune --db 0
refuse 2 "tune takes no --attention" tune --attention window
refuse 3 "nowhere.ini" tune $SMALL --check nowhere.ini --log e.jsonl
finish
