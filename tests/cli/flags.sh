# What is asked for by flags alone: help, lists, refusals.
. "$(dirname "$0")/lib.sh"

run 0 --help && printed "ditgen rerun" && printed "--guidance-scale" && printed "-c:v"
run 0 -h
run 0 generate --help
run 0 rerun --help && printed "CLIP"
run 0 --version && printed "ditgen "
for what in solvers methods caches kernels devices writers profiles; do run 0 list $what; done
run 0 list && printed "unipc" && printed "euler" && printed "dpmpp" && printed "dense" && printed "window" && printed "y4m"
run 0 inspect && printed "transformer" && printed "ditgen.ini"
run 0 inspect "$SOURCE/assets/emoji/vae/diffusion_pytorch_model.safetensors" && printed "decoder.conv_in.weight"

refuse 2 "no prompt"
refuse 2 "did you mean --steps" x --stesp 4
refuse 2 "unknown flag -z" x -z
refuse 2 "unknown flag -yz" x -yz
refuse 2 "wants a value" x --steps
refuse 2 "1 to 1000" x --steps 0
refuse 2 "--steps is 'two'" x --steps two
refuse 2 "--guidance-scale" x --guidance-scale nan
refuse 2 "18446744073709551615" x -s 18446744073709551616
refuse 2 "--seed is '-1'" x -s -1
refuse 2 "WIDTHxHEIGHT" x --size 64
refuse 2 "contradict" x --size 64x64 -W 64
refuse 2 "contradict" x --frames 5 --seconds 1
refuse 2 "contradict" x -q -v
refuse 2 "contradict" x -f somewhere
refuse 2 "two prompts" x y
refuse 2 "unipc" x --solver heun
refuse 2 "auto|fp32|bf16|fp8" x --precision fp16
refuse 5 "a GPU's, and this is cpu" x --precision fp8 --device cpu
refuse 2 "dense" x --attention nothing
refuse 2 "belongs to --attention window" x --attention dense --window-tiles 2
refuse 2 "nosuch" x --kernel nosuch -o o.y4m
refuse 2 "diffusers-0.36" x --compat something
refuse 2 "there is no list" list nothing
refuse 2 "unknown flag" inspect --what
refuse 3 "no such folder" x -m nowhere
refuse 3 "no such folder" inspect nowhere
refuse 2 "rerun wants one clip" rerun

# sizes and counts by hand: refused with the nearest two that the model can do
refuse 2 "64 and 80" x -W 65 -o o.y4m
refuse 2 "--height is 70" x -H 70 -o o.y4m
refuse 2 "5 and 9" x --frames 6 -o o.y4m
refuse 2 "16" x -W 1 -o o.y4m

# the cap: names, what is above the processor, and that the plan's kernel obeys
refuse 2 "wanted one of auto, cpu, cuda, cuda:N, cpu:ref, cpu:avx2" x --device cpu:avx9 -o o.y4m
refuse 5 "--device cpu" x $TINY --device cuda:999 -o o.y4m
refuse 2 "--device is 'gpu'" x --device gpu -o o.y4m
printf 'device = cpu:ref\n' >ref.ini
run 0 --plan x $TINY --config ref.ini -o o.y4m && printed "(ref)"
run 0 --plan x $TINY --config ref.ini --device auto -o o.y4m
run 0 --plan x $TINY --device cpu:ref -o o.y4m && printed "(ref)"

# planning reads no weights (but their headers), writes nothing, and has an exit code of its own
run 0 --plan $TINY -o o.y4m && printed "tokens" && printed "attention" && printed "fits"
run 4 --plan x --size 4096x4096 --frames 4001 -o o.y4m && printed "does not fit"
run 0 --plan x $TINY --progress json && printed '"tokens":'
[ -e o.y4m ] && bad "--plan wrote a clip"
model bare
rm "$M"/*/*.safetensors
refuse 3 "model.safetensors" --plan x $TINY -m "$M" -o o.y4m

# the model's sizes come before what an encoder thinks of them
refuse 2 "--width is 65; the nearest this model can do are 64 and 80" x --size 65x64 -o o.mp4
refuse 2 "--height is 65; the nearest" x --size 64x65 -pix_fmt yuv444p -o o.mp4
refuse 2 "--height is 8; the nearest this model can do is 16" x --size 64x8 -o o.y4m
finish
