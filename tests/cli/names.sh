# Names of output: made, kept, refused.
. "$(dirname "$0")/lib.sh"

suffix=y4m
[ "$LIBAV" = 1 ] && suffix=mp4
ONE="--size 32x32 --frames 1 --steps 1 -t 1"
run 0 "A Rocket, flies up!" $ONE -s 9 && [ -f "a-rocket-flies-up-9.$suffix" ] || bad "no a-rocket-flies-up-9.$suffix"
cp "a-rocket-flies-up-9.$suffix" first
run 0 "A Rocket, flies up!" $ONE -s 9 && [ -f "a-rocket-flies-up-9-2.$suffix" ] || bad "the second name"
same "a-rocket-flies-up-9.$suffix" first

run 0 x $ONE -s 1 -o a.y4m
cp a.y4m kept
refuse 2 "exists" x $ONE -s 2 -o a.y4m
same a.y4m kept
run 0 x $ONE -s 2 -y -o a.y4m && differ a.y4m kept

refuse 2 ".y4m" x $ONE -o a.xyz
refuse 2 "suffix" x $ONE -o plain
refuse 2 "f_%04d.png" x $ONE -o a.png
refuse 4 "nofolder" x $ONE -o nofolder/a.y4m
mkdir folder.y4m
refuse 2 "folder.y4m" x $ONE -o folder.y4m
[ "$LIBAV" = 1 ] || refuse 2 "libav" x $ONE -o a.mp4
mkdir locked
chmod 555 locked
if [ "$(id -u)" != 0 ]; then refuse 4 "locked" x $ONE -o locked/a.y4m; fi
run 0 x $ONE -s 1 --save-latents l.safetensors -o b.y4m && run 0 inspect l.safetensors && printed "F32"
refuse 2 "exists" x $ONE -s 1 --save-latents l.safetensors -o c.y4m
run 0 x $ONE -s 2 --save-latents l2.safetensors -o c.y4m
run 0 compare l.safetensors l.safetensors
run 0 compare l.safetensors l2.safetensors
finish
