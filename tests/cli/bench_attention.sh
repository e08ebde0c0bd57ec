# bench attention: made, broken off, gone on with, printed again; a log that is none is refused.
. "$(dirname "$0")/lib.sh"
SMALL="--size 32x32 --frames 5 --steps 3 -t 1 -q"
run 0 bench attention --help && printed "--quick"
run 0 bench attention --quick $SMALL --log whole.jsonl
printed '| `steps=2` | 1 | 1.00 |'
printed '| `attention=resid` | 1 |'
printed '| `step-cache=easycache:threshold=0.1` | 1 |'
printed '| `kernel='
printed "attention alone, 3 exact steps of the model"
for m in $("$DITGEN" list methods | awk '/^  [a-z]/ { print $1 }'); do # none is left out but what says nothing alone
    "$DITGEN" x $SMALL --attention $m --plan >/dev/null 2>&1 || continue
    [ $m = dense ] || grep -q "attention=$m[:+\`]" .out || grep -q "attention=$m" .out || bad "$m is not in the table"
    done=$((done + 1))
done
rows=$(grep -c '^| `' .out)
cp .out table
refuse 2 "whole.jsonl is there: --resume goes on with it" bench attention --quick $SMALL --log whole.jsonl

# everything is known: the same table at once, also without a run
run 0 bench attention --quick $SMALL --log whole.jsonl --resume
same .out table
run 0 bench attention --quick $SMALL --log whole.jsonl --table
same .out table
run 0 bench attention --quick $SMALL --log whole.jsonl --table --json
python3 -c 'import json, sys; d = json.load(open(sys.argv[1])); sys.exit(0 if d["tables"][0]["rows"] and d["replays"] else 1)' .out 2>/dev/null ||
    { command -v python3 >/dev/null && bad "--json is no object with tables and replays"; }

# broken off: the log keeps what was made, and going on makes the rest
"$DITGEN" bench attention --quick $SMALL --log part.jsonl >.out 2>.err </dev/null &
pid=$!
until [ "$(wc -l 2>/dev/null <part.jsonl || echo 0)" -ge 3 ]; do sleep 0.1; done
kill -TERM $pid # a shell's background ignores the other one
wait $pid
[ $? = 6 ] || bad "a signal did not end it with code 6"
said "part.jsonl keeps what was made, --resume goes on with it"
kept=$(wc -l <part.jsonl)
run 0 bench attention --quick $SMALL --log part.jsonl --resume
[ "$(grep -c '^| `' .out)" = "$rows" ] || bad "gone on with: $(grep -c '^| `' .out) rows, wanted $rows"
[ "$(wc -l <part.jsonl)" -ge "$kept" ] || bad "going on lost lines"

echo "no log" >bad.jsonl
refuse 3 "bad.jsonl: line 1 is no trial" bench attention --quick $SMALL --log bad.jsonl --resume
refuse 2 "takes no --attention" bench attention --attention window
refuse 2 "--clock is 'sun'" bench attention --clock sun
finish
