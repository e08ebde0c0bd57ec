# Predicted peak memory is within 10 % of the measured one.
. "$(dirname "$0")/lib.sh"
[ "$SANITIZE" = ON ] && { echo "skipped: sanitizers keep memory of their own"; exit 0; }

for clip in "64x64 5" "128x128 17" "256x192 9"; do
    set -- --size ${clip% *} --frames ${clip#* } --steps 1 -t 1 -s 1 -y -o o.y4m x
    run 0 "$@" --plan --progress json
    plan=$(sed -n 's/.*"peak_bytes":\([0-9]*\).*/\1/p' "$T/.out")
    peak=$("$PEAK_OF" "$DITGEN" "$@" -q 2>"$T/.err") || bad "no peak of $clip"
    done=$((done + 1))
    echo "$clip: predicted $plan, measured $peak"
    [ $((plan * 10)) -ge $((peak * 9)) ] && [ $((plan * 10)) -le $((peak * 11)) ] ||
        bad "$clip: predicted $plan bytes, measured $peak"
done
finish
