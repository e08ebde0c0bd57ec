# Weights that are not what they should be: one line, code 3, no clip.
. "$(dirname "$0")/lib.sh"
E="$DITGEN_ASSETS/emoji"

# spoil PART FILE COMMAND...: the file of a fresh copy replaced by COMMAND's output
n=0
spoil() {
    n=$((n + 1))
    file=$1
    shift
    model "m$n"
    rm -f "$M/$file"
    "$@" >"$M/$file"
}
check() { # WORDS: before the first step, in a plan and by inspect
    refuse 3 "$1" x $TINY --steps 900 -q -s 1 -m "$M" -o o.y4m
    refuse 3 "$1" x $TINY --plan -m "$M" -o o.y4m
    refuse 3 "$1" inspect "$M"
    rm -rf "$M"
}
u64() { # little-endian bytes of a number below 2^31
    printf "\\$(printf %03o $(($1 & 255)))\\$(printf %03o $(($1 >> 8 & 255)))\\$(printf %03o $(($1 >> 16 & 255)))\\$(printf %03o $(($1 >> 24 & 255)))\\0\\0\\0\\0"
}
file_of() { # HEADER BYTES: a safetensors file with that header and so many zero bytes
    u64 ${#1}
    printf %s "$1"
    head -c "$2" /dev/zero
}
D=diffusion_pytorch_model.safetensors
for part in transformer/$D vae/$D text_encoder/model.safetensors; do
    model "gone$n"
    rm "$M/$part"
    n=$((n + 1))
    check "$(basename "$part" .safetensors)"
    for bytes in 0 7 8 9 200; do spoil "$part" head -c $bytes "$E/$part" && check "$(basename "$part")"; done
    size=$(wc -c <"$E/$part")
    spoil "$part" head -c $((size - 1)) "$E/$part" && check "$(basename "$part")"
    spoil "$part" sh -c "cat '$E/$part'; echo x" && check "$(basename "$part")"
done
spoil transformer/$D file_of '{}' 0 && check "transformer"
spoil transformer/$D file_of '{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}' 8 && check "transformer"
spoil transformer/$D file_of '{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,9]}}' 9 && check "transformer"
spoil transformer/$D file_of '{"a":{"dtype":"F32","shape":[2],"data_offsets":[4,8]}}' 8 && check "transformer"
spoil transformer/$D file_of '{"a":{"dtype":"Q9","shape":[2],"data_offsets":[0,8]}}' 8 && check "transformer"
spoil transformer/$D file_of '{"a":{"dtype":"F32","shape":[4611686018427387904,4],"data_offsets":[0,8]}}' 8 && check "transformer"
spoil transformer/$D file_of '{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"b":{"dtype":"F32","shape":[1],"data_offsets":[2,6]}}' 6 && check "transformer"
spoil transformer/$D sh -c "printf '\377\377\377\377\377\377\377\177'; head -c 100 /dev/zero" && check "transformer"
spoil transformer/$D sh -c "printf 'this is no checkpoint at all, only text'" && check "transformer"

# every tensor of every part is held against its config
for edit in "vae/config.json s/\"z_dim\":*[^,]*/\"z_dim\":\ 8/" "text_encoder/config.json s/\"d_ff\":*[^,]*/\"d_ff\":\ 40/"; do
    model "shape$n"
    n=$((n + 1))
    edit "${edit%% *}" "$(echo "${edit#* }" | tr -d '\\')"
    check "config"
done

# numbers that are none: told with the layer that makes them first, and no clip
nan() { # FILE WORDS: all weights from the last quarter on are 0xffff, which no type has as a number
    model "nan$n"
    n=$((n + 1))
    rm "$M/$1"
    size=$(wc -c <"$E/$1")
    head -c $((size - size / 4)) "$E/$1" >"$M/$1"
    head -c $((size / 4)) /dev/zero | tr '\0' '\377' >>"$M/$1"
    run 3 x $TINY -q -s 1 -m "$M" -o o.y4m
    said "$2"
    [ -e o.y4m ] && bad "a clip of no numbers"
    rm -rf .ditgen # the latents are good: kept for when the vae is mended
}
nan vae/$D "vae: "
grep -q "gives values that are no numbers" "$T/.err" || bad "the layer is not named"
nan transformer/$D "not finite"

# weights that are zeros give a clip of one colour: written, and told
model flat
rm "$M/vae/$D"
header=$((8 + $(od -An -tu8 -N8 "$E/vae/$D")))
size=$(wc -c <"$E/vae/$D")
{ head -c $header "$E/vae/$D"; head -c $((size - header)) /dev/zero; } >"$M/vae/$D"
run 0 x $TINY -s 1 -m "$M" -o flat.y4m
said "warning: every pixel of the clip has one colour"
[ -e flat.y4m ] || bad "a clip of one colour was not written"
run 0 x $TINY -s 1 -y -o flat.y4m
grep -q "one colour" "$T/.err" && bad "a clip of many colours is told to have one"
rm -f flat.y4m

# the right file for another model: names the tensor
model swapped
rm "$M/transformer/$D"
cp -s "$E/vae/$D" "$M/transformer/$D"
check "transformer"
model fewer
edit transformer/config.json 's/"num_layers": *\([0-9]*\)/"num_layers": 1/'
check "blocks"
model more
edit transformer/config.json 's/"num_layers": *\([0-9]*\)/"num_layers": 99/'
check "blocks"
model wide
edit transformer/config.json 's/"ffn_dim": *\([0-9]*\)/"ffn_dim": 64/'
check "ffn"
refuse 3 "o.txt" inspect o.txt
printf 'no' >n.safetensors
refuse 3 "n.safetensors" inspect n.safetensors
mkfifo pipe.safetensors
printf 'no' >pipe.safetensors & # any file argument may be a pipe, and what comes out of it is read
refuse 3 "pipe.safetensors" inspect pipe.safetensors
wait

finish
