# Folders whose configs are broken, wrong or hostile: one line, code 3, before any weight is read.
. "$(dirname "$0")/lib.sh"

n=0
# hostile FILE SED WORDS: a copy with one edit is refused with these words
hostile() {
    n=$((n + 1))
    model "m$n"
    edit "$1" "$2"
    refuse 3 "$3" x $TINY -q -s 1 -m "$M" -o o.y4m
    rm -rf "$M"
}
# replaced FILE TEXT WORDS
replaced() {
    n=$((n + 1))
    model "m$n"
    rm -f "$M/$1"
    printf "$2" >"$M/$1"
    refuse 3 "$3" x $TINY -q -s 1 -m "$M" -o o.y4m
    rm -rf "$M"
}
missing() { # FILE
    n=$((n + 1))
    model "m$n"
    rm -rf "${M:?}/$1"
    refuse 3 "$(basename "$1" .json)" x $TINY -q -s 1 -m "$M" -o o.y4m
    rm -rf "$M"
}
for f in model_index.json scheduler/scheduler_config.json transformer/config.json vae/config.json \
    text_encoder/config.json; do
    missing "$f"
    replaced "$f" '{"a": ' "$f"
    replaced "$f" '' "$f"
    replaced "$f" '[1, 2]' "$f"
    replaced "$f" "$(awk 'BEGIN { for (i = 0; i < 5000; i++) printf "[" }')" "$f"
done
missing tokenizer
replaced tokenizer/tokenizer.json '{}' "tokenizer.json"
replaced tokenizer/tokenizer.json '{"model":{"type":"BPE","vocab":{}}}' "tokenizer.json"
replaced tokenizer/tokenizer.json 'not json' "tokenizer.json"

hostile model_index.json 's/WanPipeline/FluxPipeline/' "FluxPipeline"
hostile model_index.json 's/WanPipeline/WanImageToVideoPipeline/' "WanImageToVideoPipeline"
hostile transformer/config.json 's/WanTransformer3DModel/FluxTransformer2DModel/' "FluxTransformer2DModel"
hostile vae/config.json 's/AutoencoderKLWan/AutoencoderKL/' "AutoencoderKL"
for value in 0 -1 2000000000 1e30 '"8"' '[8]' 1.5; do
    hostile transformer/config.json "s/\"num_layers\": *[0-9]*/\"num_layers\": $value/" "num_layers"
    hostile transformer/config.json "s/\"num_attention_heads\": *[0-9]*/\"num_attention_heads\": $value/" "num_attention_heads"
    hostile vae/config.json "s/\"z_dim\": *[0-9]*/\"z_dim\": $value/" "z_dim"
    hostile text_encoder/config.json "s/\"num_layers\": *[0-9]*/\"num_layers\": $value/" "num_layers"
done
hostile transformer/config.json 's/"qk_norm": *"[a-z_]*"/"qk_norm": "layer_norm"/' "qk_norm"
hostile vae/config.json 's/"scale_factor_spatial": *8/"scale_factor_spatial": 0/' "scale_factor_spatial"
hostile scheduler/scheduler_config.json 's/UniPCMultistepScheduler/DDIMScheduler/' "DDIMScheduler"
hostile scheduler/scheduler_config.json 's/"solver_order": *2/"solver_order": 3/' "solver_order"
hostile scheduler/scheduler_config.json 's/"flow_shift": *[0-9.]*/"flow_shift": -1/' "flow_shift"
hostile scheduler/scheduler_config.json 's/flow_prediction/epsilon/' "prediction_type"
hostile ditgen.ini 's/^steps = .*/stesp = 3/' "ditgen.ini:"
hostile ditgen.ini 's/^steps = .*/steps = lots/' "ditgen.ini:"
hostile ditgen.ini 's/^width = .*/width = 250/' "width"
hostile ditgen.ini 's/^\[defaults\]/[default/' "ditgen.ini:"

# without ditgen.ini: the nearest published model, and the line says which
model plain
rm -rf "$M/ditgen.ini" "$M/transformer_turbo"
run 0 x --plan -m "$M" $TINY && printed "Wan2.1"
# few-step weights that the folder lacks
refuse 2 "--turbo" x $TINY -q --turbo -m "$M" -o o.y4m
if [ -d "$SOURCE/assets/emoji/transformer_turbo" ]; then
    run 0 x --turbo --size 32x32 --frames 5 -t 1 -s 1 -o t.y4m && carries t.y4m "turbo = true"
    run 0 rerun t.y4m -t 1 -o t2.y4m && same t.y4m t2.y4m
    run 0 x --turbo $TINY -s 1 -o t3.y4m && carries t3.y4m "steps = 2" # a flag is above the section
    model lost
    edit ditgen.ini 's/^\[turbo\]/[defaults]/'
    refuse 2 "[turbo]" x $TINY -q --turbo -m "$M" -o o.y4m
fi
finish
