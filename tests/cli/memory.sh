# Predicted peak memory is within 5 % of the measured one, prompts short and long; with a limit of address
# space a run is refused before it computes, or not at all. Phases: unit/lib/test_phase_memory.c.
. "$(dirname "$0")/lib.sh"
built_in
[ "$SANITIZE" = ON ] && { echo "skipped: sanitizers keep memory of their own"; exit 0; }

long=$(printf 'cat %.0s' $(seq 600))
for clip in "64x64 5 x" "128x128 17 x" "256x192 9 x" "64x64 1 $long"; do
    size=${clip%% *} rest=${clip#* }
    set -- --size $size --frames ${rest%% *} --steps 1 -t 1 -s 1 -y -o o.y4m "${rest#* }"
    run 0 "$@" --plan --progress json
    plan=$(sed -n 's/.*"peak_bytes":\([0-9]*\).*/\1/p' "$T/.out")
    peak=$("$PEAK_OF" "$DITGEN" "$@" -q 2>"$T/.err") || bad "no peak of $clip"
    done=$((done + 1))
    echo "$clip: predicted $plan, measured $peak"
    [ $((plan * 10)) -ge $((peak * 9 + peak / 2)) ] && [ $((plan * 10)) -le $((peak * 10 + peak / 2)) ] ||
        bad "$clip: predicted $plan bytes, measured $peak"
done

# from where the loader runs out of room to where the run fits: nothing between may begin and fail
refused=0 fitted=0
for kib in $(seq 200000 15000 800000); do
    code=0
    (ulimit -v $kib; exec "$DITGEN" x --size 64x64 --frames 5 --steps 1 -t 2 -s 1 -y -o v.y4m --progress json) \
        >"$T/.out" 2>"$T/.err" || code=$?
    [ $code = 127 ] && continue # the loader's
    done=$((done + 1))
    grep -q '"event":"progress"' "$T/.err" && began=1 || began=0
    case $code in
    0) fitted=$((fitted + 1)) ;;
    4) refused=$((refused + 1)) ;;
    *) bad "ulimit -v $kib: exit code $code" ;;
    esac
    [ $code = 0 ] || [ $began = 0 ] || bad "ulimit -v $kib: failed with work done"
done
echo "ulimit -v: $refused refused, $fitted ran"
[ $refused -gt 0 ] && [ $fitted -gt 0 ] || bad "the limits do not reach from refusal to success"

run 0 --plan --size 64x64 --frames 1 "$long" && printed ", and 512 of text" # the plan knows the prompt
finish
