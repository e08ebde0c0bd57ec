# Where settings come from and where they are kept.
. "$(dirname "$0")/lib.sh"

run 0 x $TINY -s 1 -o a.y4m

# rerun reads every kind of clip and gives the same bytes; flags change what they name
run 0 rerun a.y4m -t 1 -o r.y4m && same a.y4m r.y4m
run 0 rerun a.y4m -s 2 -t 1 -o r2.y4m && differ a.y4m r2.y4m && carries r2.y4m "seed = 2"
run 0 rerun a.y4m -t 1 && [ -f x-1.y4m ] || bad "rerun without -o made no x-1.y4m"
mkdir frames
run 0 x $TINY -s 1 -o frames/ && run 0 rerun frames/ -t 1 -o r3.y4m && same_frames a.y4m r3.y4m
run 0 rerun frames/settings.ini -t 1 -o r4.y4m && same a.y4m r4.y4m
if [ "$LIBAV" = 1 ]; then
    for s in mp4 mov webm; do
        run 0 x $TINY -s 1 -o "c.$s" && run 0 rerun "c.$s" -t 1 -o "d.$s" && same "c.$s" "d.$s"
    done
fi
printf 'YUV4MPEG2 W32 H32 F16:1 C444\nFRAME\n' >bare.y4m
head -c 3072 /dev/zero >>bare.y4m
refuse 3 "no settings" rerun bare.y4m -q
refuse 3 "nowhere.y4m" rerun nowhere.y4m -q
printf '[ditgen]\nprompt = "x"\nmodel = "someones"\n' >other.ini
refuse 3 "-m DIR" rerun other.ini -q
printf '[ditgen]\nprompt = "x"\nstesp = 2\n' >typo.ini
refuse 3 "typo.ini:3: unknown key 'stesp', did you mean 'steps'" rerun typo.ini -q

# where prompts come from
printf 'x\n' >prompt.txt
run 0 -f prompt.txt $TINY -s 1 -o f.y4m && same a.y4m f.y4m
printf 'x\n' | "$DITGEN" $TINY -s 1 -o g.y4m 2>"$T/.err" || bad "no prompt from a pipe"
same a.y4m g.y4m
"$DITGEN" $TINY -s 1 -f - -o h.y4m 2>"$T/.err" <prompt.txt || bad "no prompt by -f -"
same a.y4m h.y4m
run 0 -p "" $TINY -s 1 -o empty.y4m && carries empty.y4m 'prompt = ""' && differ a.y4m empty.y4m
printf '' | "$DITGEN" $TINY 2>"$T/.err"
[ $? = 2 ] || bad "an empty pipe is no prompt"
refuse 3 "missing.txt" -f missing.txt
mkdir folder
refuse 3 "folder" -f folder
printf 'a\0b' >nul.txt
refuse 3 "NUL" -f nul.txt
awk 'BEGIN { for (i = 0; i < 3000; i++) printf "word%d ", i }' >long.txt
run 0 -f long.txt $TINY -s 1 -o long.y4m && said "too long"
[ "$(grep -c warning "$T/.err")" = 1 ] || bad "an over-long prompt wants one warning"

printf 'a red apple\na blue fish\n\n' >two.txt
run 0 -f two.txt $TINY -s 1 -o two.y4m && said "warning: the 2 lines of two.txt are one prompt"
printf 'caf\351 noir' >latin1.txt
refuse 3 "latin1.txt: prompt is not UTF-8: byte 0xE9 at position 4, behind 'caf'" -f latin1.txt
refuse 2 "--prompt is not UTF-8: byte 0xE9 at position 4" -p "$(cat latin1.txt)"
refuse 2 "--negative is not UTF-8" x -n "$(cat latin1.txt)"
printf '\357\273\277x\n' >bom.txt
run 0 -f bom.txt $TINY -s 1 -o bom.y4m && same a.y4m bom.y4m
printf '\377\376x\000\n\000' >utf16.txt
run 0 -f utf16.txt $TINY -s 1 -o utf16.y4m && same a.y4m utf16.y4m

# prompts as long as they may be: what generate takes, the clip carries and rerun reads
awk 'BEGIN { for (i = 0; i < 95000; i++) printf "quotes \" \" " }' >big.txt
run 0 -q -f big.txt $TINY --steps 1 -s 1 -o big.y4m && run 0 rerun big.y4m -q -o big2.y4m && same big.y4m big2.y4m
[ "$LIBAV" = 1 ] && run 0 -q -f big.txt $TINY --steps 1 -s 1 -o big.mp4 && run 0 rerun big.mp4 -q -o big2.mp4 && same big.mp4 big2.mp4
head -c 70000 big.txt >wide.txt # over 64 KiB; the rest of what may hold it
run 0 -q -f wide.txt $TINY --steps 1 -s 1 -o wide/ && run 0 rerun wide/ -q -o again/ && same_frames wide/ again/
if [ "$LIBAV" = 1 ]; then
    for s in mov webm; do
        run 0 -q -f wide.txt $TINY --steps 1 -s 1 -o "wide.$s" && run 0 rerun "wide.$s" -q -o "again.$s" && same "wide.$s" "again.$s"
    done
fi
cat big.txt big.txt >bigger.txt
refuse 3 "bigger.txt" -f bigger.txt

# seconds: the nearest count, said; random seeds: printed, stored, different
run 0 x --size 32x32 --fps 16 --seconds 0.4 --steps 1 -t 1 -s 1 -o sec.y4m && info sec.y4m "frames 5" && said "nearest"
run 0 x $TINY --steps 1 -o seed1.y4m && run 0 x $TINY --steps 1 -o seed2.y4m && differ seed1.y4m seed2.y4m
run 0 x -q $TINY --steps 1 -o seed3.y4m && said "seed"
run 0 x -q $TINY --steps 1 -s 3 -o seed4.y4m
[ -s "$T/.err" ] && bad "-q says something"

# progress for programs: every line is an object
run 0 x $TINY -s 1 --progress json -o json.y4m
[ "$(grep -cv '^{.*}$' "$T/.err")" = 0 ] || bad "--progress json has a line that is no object"
said '"event":"plan"'
said '"phase":"denoise","done":2,"total":2'
said '"event":"done"'

# --dump-config reads back, by rerun in every build
run 0 x $TINY -s 1 --dump-config used.ini -o dump.y4m && run 0 rerun used.ini -o r5.y4m && same a.y4m r5.y4m
refuse 2 "exists" x $TINY -q -s 1 --dump-config used.ini -o dump2.y4m
run 0 x $TINY -s 1 --plan --dump-config - && printed "seed = 1"

# defaults < profile < --config < flags
mkdir -p assets/profiles
ln -s "$DITGEN_ASSETS/emoji" assets/emoji
printf '[ditgen]\nsteps = 3\nguidance_scale = 2\nseed = 5\nfps = 12\n' >assets/profiles/mine.ini
printf 'guidance-scale = 1.5\nseed = 6\n' >conf.ini
DITGEN_ASSETS="$T/assets"
export DITGEN_ASSETS
run 0 x --size 32x32 --frames 1 --profile mine --config conf.ini -s 7 --plan --dump-config -
printed "steps = 3"
printed "guidance-scale = 1.5"
printed "seed = 7"
printed "fps = 12"
run 0 x --plan --profile mine --dump-config - && printed "seed = 5" && printed "guidance-scale = 2"
refuse 2 "there are mine" x --profile yours
DITGEN_ASSETS=$SMALL_ASSETS
run 0 x $TINY -s 1 --config used.ini -o conf.y4m && same a.y4m conf.y4m
printf 'steps = 2\nstesp = 3\n' >typo.ini
refuse 3 "typo.ini:2: unknown key 'stesp', did you mean 'steps'" x --config typo.ini
printf '[ditgen]\nsteps = many\n' >value.ini
refuse 3 "value.ini:2: steps is 'many'" x --config value.ini
printf '[other]\nsteps = 2\n' >section.ini
refuse 3 "section.ini" x --config section.ini
printf 'nonsense\n' >line.ini
refuse 3 "line.ini:1" x --config line.ini
refuse 3 "missing.ini" x --config missing.ini
# any file may be a pipe, and is opened once
mkfifo p1 p2 p3
pipe() { # FIFO FILE: the file comes out of the pipe once
    cat "$2" >"$1" &
}
pipe p1 used.ini && run 0 x $TINY -s 1 --config p1 -o p.y4m && same a.y4m p.y4m
printf 'stesp = 1\n' >typo1.ini
pipe p1 typo1.ini && refuse 3 "p1:1: unknown key 'stesp'" x --config p1
pipe p2 prompt.txt && run 0 -f p2 $TINY -s 1 -o p2.y4m && same a.y4m p2.y4m
pipe p3 a.y4m && run 0 rerun p3 -o p3.y4m && same a.y4m p3.y4m
pipe p3 used.ini && run 0 rerun p3 -o p4.y4m && same a.y4m p4.y4m
pipe p3 typo1.ini && refuse 3 "p3 is no clip" rerun p3
pipe p1 a.y4m && run 0 compare p1 r.y4m && printed "identical"
run 0 x $TINY -s 1 --save-latents l.safetensors -o l.y4m
pipe p1 l.safetensors && pipe p2 l.safetensors && run 0 compare p1 p2 && printed "identical"
pipe p1 l.safetensors && run 0 inspect p1 && printed "1 tensors"
wait

# --config reads whatever --dump-config writes
run 0 -q -f big.txt $TINY --plan --dump-config bigused.ini && run 0 -q --config bigused.ini --plan --dump-config bigused2.ini && same bigused.ini bigused2.ini

# the profiles that come with ditgen, calibrated for its model
built_in
for p in "$SOURCE"/assets/profiles/*.ini; do run 0 x --plan --profile "$(basename "$p" .ini)"; done
# what a profile says of encoders is no hindrance to a writer that has none; what is typed is
run 0 x --plan --profile fine -o f.y4m
run 0 x --plan --profile fine -o fineframes/
refuse 2 "y4m is uncompressed" x --plan --profile fine -crf 20 -o f.y4m
finish
