"""Makes the seeds of the targets that read weights against a config, and of the files beside them:
tests/fuzz/corpus. Wants diffusers and transformers; run by hand when a format here changes."""

import json
import os
import struct
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "golden"))


def put(target, name, data):
    folder = os.path.join(HERE, "corpus", target)
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, name), "wb") as f:
        f.write(data if isinstance(data, bytes) else data.encode())


def safetensors(shapes, metadata=None, value=b"\x80\x3f", dtype="BF16"):
    head, at = {}, 0
    if metadata:
        head["__metadata__"] = metadata
    for name in sorted(shapes):
        n = len(value)
        for d in shapes[name]:
            n *= d
        head[name] = {"dtype": dtype, "shape": list(shapes[name]), "data_offsets": [at, at + n]}
        at += n
    text = json.dumps(head, separators=(",", ":")).encode()
    return struct.pack("<Q", len(text)) + text + value * (at // len(value))


def shapes_of(module, skip=()):
    return {k: tuple(v.shape) for k, v in module.state_dict().items() if k not in skip}


def both(target, name, config, shapes):
    put(target, name, json.dumps(config, separators=(",", ":")).encode() + b"\0" + safetensors(shapes))


def main():
    from diffusers import AutoencoderKLWan, WanTransformer3DModel
    from transformers import UMT5Config, UMT5EncoderModel

    for name, more in (("t2v", {}), ("i2v", dict(image_dim=4, added_kv_proj_dim=12))):
        dit = WanTransformer3DModel(
            num_attention_heads=1, attention_head_dim=12, in_channels=2, out_channels=2, text_dim=4, freq_dim=4,
            ffn_dim=4, num_layers=1, rope_max_seq_len=8, **more)  # fmt: skip
        config = {k: v for k, v in dit.config.items() if not k.startswith("_")}
        both("dit_weights", name, {"_class_name": "WanTransformer3DModel", **config}, shapes_of(dit))
    vae = AutoencoderKLWan(base_dim=2, z_dim=2, dim_mult=[1, 1], num_res_blocks=1, temperal_downsample=[True],
                           latents_mean=[0.0] * 2, latents_std=[1.0] * 2)  # fmt: skip
    config = {k: v for k, v in vae.config.items() if not k.startswith("_")}
    both("vae_weights", "tiny", {"_class_name": "AutoencoderKLWan", **config}, shapes_of(vae))
    c = UMT5Config(vocab_size=4, d_model=4, d_kv=2, num_heads=2, d_ff=4, num_layers=1, num_decoder_layers=1,
                   feed_forward_proj="gated-gelu")  # fmt: skip
    c.architectures = ["UMT5EncoderModel"]
    text = c.to_json_string(use_diff=False)
    both("text_umt5", "tiny", json.loads(text), shapes_of(UMT5EncoderModel(c), ("encoder.embed_tokens.weight",)))
    put("text_umt5_config", "all", text)
    put("text_umt5_config", "short", c.to_json_string())
    put("text_umt5_config", "bom_nan", "\ufeff" + text.replace('"d_ff"', '"odd": [NaN, -Infinity], "d_ff"', 1))

    put("weights_index", "two", json.dumps({"metadata": {"total_size": 22}, "weight_map": {
        "x": "a.safetensors", "y": "b.safetensors", "z": "b.safetensors"}}))  # fmt: skip
    put("weights_index", "one", '{"weight_map": {"x": "a.safetensors"}}')
    put("weights_index", "outside", '{"weight_map": {"x": "../a.safetensors", "y": "b.safetensors"}}')
    put("weights_index", "missing", '{"weight_map": {"x": "a.safetensors", "y": "a.safetensors", "q": "c"}}')

    meta = {"transformer.r": 1, "transformer.lora_alpha": 2, "transformer.alpha_pattern": {"^blocks.*to_q": 3},
            "transformer.rank_pattern": {r"proj_(out|in)": 2}, "transformer.use_rslora": True}  # fmt: skip
    pairs = {"transformer.blocks.0.attn1.to_q.lora_A.weight": (1, 4),
             "transformer.blocks.0.attn1.to_q.lora_B.weight": (3, 1),
             "transformer.blocks.0.attn1.to_q.lora_B.bias": (3,),
             "transformer.proj_out.lora_A.weight": (2, 4), "transformer.proj_out.lora_B.weight": (3, 2)}  # fmt: skip
    put("dit_adapter", "meta", safetensors(pairs, {"lora_adapter_metadata": json.dumps(meta)}))
    put("dit_adapter", "plain", safetensors(pairs, None, b"\0\0\x80\x3f", "F32"))
    put("dit_adapter", "metadata", json.dumps(meta))
    put("dit_adapter", "patterns", json.dumps({"transformer.r": 4, "transformer.alpha_pattern": {
        r"(?:blocks\.[0-9]+|x)\.attn[12]\..*?0": 1, "(a|b|)*c{2,3}[^]x-z]+$": 2, "to_out.0": 3}}))  # fmt: skip

    index = {"_class_name": "WanPipeline", "_diffusers_version": "0.42.1", "boundary_ratio": None,
             "expand_timesteps": False, "scheduler": ["diffusers", "UniPCMultistepScheduler"],
             "text_encoder": ["transformers", "UMT5EncoderModel"], "tokenizer": ["transformers", "T5TokenizerFast"],
             "transformer": ["diffusers", "WanTransformer3DModel"], "transformer_2": [None, None],
             "vae": ["diffusers", "AutoencoderKLWan"]}  # fmt: skip
    put("model_index", "wan21", json.dumps(index, indent=2))
    put("model_index", "two_experts", json.dumps({**index, "boundary_ratio": 0.875, "transformer_2": index["transformer"]}))
    put("model_index", "other", json.dumps({**index, "_class_name": "WanImageToVideoPipeline", "tokenizer": "x" * 90}))

    golden = os.path.join(HERE, "..", "golden", "data", "text_spiece")
    with open(os.path.join(golden, "spiece.model"), "rb") as f:
        model = f.read()
    from sentencepiece import sentencepiece_model_pb2 as pb

    m = pb.ModelProto.FromString(model)
    del m.pieces[40:]
    m.normalizer_spec.precompiled_charsmap = b""
    put("text_spiece", "small", m.SerializeToString())
    m.trainer_spec.model_type = 2
    put("text_spiece", "bpe", m.SerializeToString())
    m = pb.ModelProto.FromString(model)
    del m.pieces[320:]
    put("text_spiece", "charsmap", m.SerializeToString())
    put("text_tokenizer_config", "t5", '{"tokenizer_class": "T5Tokenizer", "extra_ids": 10}')
    put("text_tokenizer_config", "tokens", json.dumps({"added_tokens_decoder": {"1": {
        "content": "</s>", "lstrip": True, "normalized": False, "rstrip": False, "single_word": True, "special": True}},
        "additional_special_tokens": ["<extra_id_0>", {"content": "<extra_id_1>"}]}) + '\0{"</s>": 1}')  # fmt: skip
    put("text_tokenizer_config", "new", '{"extra_ids": 0}\0{"new": %d}' % len(pb.ModelProto.FromString(model).pieces))
    put("text_tokenizer_config", "nan", '\ufeff{"extra_ids": NaN}')


if __name__ == "__main__":
    main()
