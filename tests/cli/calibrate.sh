# calibrate: what teacache and magcache are refused without, and what they run with.
. "$(dirname "$0")/lib.sh"
CLIP="--size 64x64 --frames 9 --steps 8 -t 1 -s 1 -y -o a.y4m"
model m
rm -f "$M/step-caches.ini"
refuse 2 "step cache magcache has to be calibrated for a model, and there is no $M/step-caches.ini; 'ditgen calibrate' does it" x -m "$M" $CLIP --step-cache magcache
refuse 2 "ditgen calibrate" x -m "$M" $CLIP --step-cache teacache --plan
run 0 x -m "$M" $CLIP --step-cache teacache:poly=0/0/0/0/.05
run 0 calibrate -m "$M" --size 64x64 --frames 9 --steps 8 -t 1 --prompts 2
printed "$M/step-caches.ini"
said "2 exact clips of 8 steps, not decoded: about"
for c in magcache:threshold=9 teacache:threshold=9; do
    run 0 x -m "$M" $CLIP --step-cache $c
    said "steps left out"
done
run 0 x -m "$M" $CLIP --step-cache magcache:threshold=9,most=1,first=2 --plan
printed "computes 5 of 8 steps" # 2 and then every other one
refuse 2 "the few-step transformer never is" x -m "$M" $CLIP --turbo --step-cache magcache

# other weights of the same size and shape
w="$M/transformer/diffusion_pytorch_model.safetensors"
cp --remove-destination "$(readlink -f "$w")" "$w"
size=$(wc -c <"$w")
dd if=/dev/zero of="$w" bs=1 seek=$((size / 2)) count=100000 conv=notrunc 2>/dev/null
refuse 2 "step-caches.ini is of other weights" x -m "$M" $CLIP --step-cache magcache

refuse 2 "--prompts is 0" calibrate --prompts 0
refuse 2 "calibrate takes no --turbo" calibrate --turbo
refuse 2 "too few to fit" calibrate -m "$M" --size 32x32 --frames 5 --steps 2 -t 1 --prompts 1 -q
echo >none.txt
refuse 3 "no prompt in it" calibrate --list none.txt --steps 2
echo "[magcache]" >"$M/step-caches.ini"
refuse 3 "calibrates nothing" x -m "$M" $CLIP --step-cache magcache
finish
