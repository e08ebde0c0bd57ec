# compare and bench, as verbs of the command.
. "$(dirname "$0")/lib.sh"

run 0 x $TINY -s 1 --save-latents a.safetensors -o a.y4m
run 0 x $TINY -s 2 --save-latents b.safetensors -o b.y4m
mkdir png
run 0 x $TINY -s 1 -o png/
run 0 compare a.y4m a.y4m && printed "identical"
run 0 compare a.y4m b.y4m && printed "PSNR" && printed "SSIM"
run 0 compare png/ a.y4m && printed "PSNR" # yuv444p rounds, nothing more
psnr=$(sed -n 's/.*PSNR[^0-9]*\([0-9]*\).*/\1/p' "$T/.out" | head -n 1)
[ "${psnr:-0}" -ge 40 ] || bad "PNG and y4m of one run are $psnr dB apart"
run 0 compare a.safetensors a.safetensors
run 0 compare a.safetensors b.safetensors
run 0 compare a.y4m b.y4m --json
refuse 2 "" compare a.y4m
refuse 3 "nowhere" compare a.y4m nowhere.y4m
run 0 x $TINY --frames 9 --steps 1 -s 1 -o longer.y4m
refuse 3 "frames" compare a.y4m longer.y4m

run 0 bench --runs 1 $TINY && printed "decode"
run 0 bench --runs 1 $TINY --json
[ "$(head -c 1 "$T/.out")" = "{" ] || bad "bench --json is no object"
refuse 2 "unknown flag" bench --rnus 1
finish
