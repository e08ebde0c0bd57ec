#!/usr/bin/env python3
"""Writes a folder shaped like Wan2.1-T2V-1.3B or 14B, the 11 GB umt5-xxl text encoder included, filled
with random bf16 weights: for timing and memory, not for looking at. 14.5 or 40.2 GB; needs no package.

    tests/bench/make_wan.py DIR [--size 1.3b|14b]  the pipeline in diffusers' layout
    tests/bench/make_wan.py DIR --text FOLDER      its text encoder is a link to that one
    tests/bench/make_wan.py DIR --original         also DIR/original/: transformer and VAE under the names
                                                   that the original project and stable-diffusion.cpp use
    tests/bench/make_wan.py DIR --names            only checks the names and prints their count

The tokenizer is the embedded model's (its ids are below umt5-xxl's 256384). Weights repeat a pool of a
prime number of random values, scaled by fan-in, so that activations stay of order one.
"""

import argparse
import array
import json
import math
import os
import random
import shutil
import struct
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
EMBEDDED = os.path.join(HERE, "..", "..", "assets", "emoji")

SIZES = {"1.3b": (1536, 8960, 30), "14b": (5120, 13824, 40)}
D, FFN, LAYERS = SIZES["1.3b"]  # main() sets them
TEXT, TEXT_FF, TEXT_LAYERS, TEXT_HEADS, VOCAB = 4096, 10240, 24, 64, 256384
BASE, Z = 96, 16
MEAN = [-0.7571, -0.7089, -0.9113, 0.1075, -0.1745, 0.9653, -0.1517, 1.5508, 0.4134, -0.0715, 0.5517,
        -0.3632, -0.1922, -0.9497, 0.2503, -0.2921]  # fmt: skip
STD = [2.8184, 1.4541, 2.3275, 2.6558, 1.2196, 1.7708, 2.6052, 2.0743, 3.2687, 2.1526, 2.8652, 1.5579,
       1.6382, 1.1253, 2.8251, 1.9160]  # fmt: skip


def transformer_config():
    return {
        "_class_name": "WanTransformer3DModel", "_diffusers_version": "0.33.0", "added_kv_proj_dim": None,
        "attention_head_dim": 128, "cross_attn_norm": True, "eps": 1e-06, "ffn_dim": FFN, "freq_dim": 256,
        "image_dim": None, "in_channels": Z, "num_attention_heads": D // 128, "num_layers": LAYERS,
        "out_channels": Z, "patch_size": [1, 2, 2], "qk_norm": "rms_norm_across_heads",
        "rope_max_seq_len": 1024, "text_dim": TEXT,
    }  # fmt: skip


VAE = {
    "_class_name": "AutoencoderKLWan", "_diffusers_version": "0.33.0", "attn_scales": [],
    "base_dim": BASE, "dim_mult": [1, 2, 4, 4], "dropout": 0.0, "latents_mean": MEAN, "latents_std": STD,
    "num_res_blocks": 2, "temperal_downsample": [False, True, True], "z_dim": Z,
}  # fmt: skip
TEXT_ENCODER = {
    "architectures": ["UMT5EncoderModel"], "d_ff": TEXT_FF, "d_kv": 64, "d_model": TEXT,
    "dense_act_fn": "gelu_new", "dropout_rate": 0.1, "feed_forward_proj": "gated-gelu",
    "is_gated_act": True, "layer_norm_epsilon": 1e-06, "model_type": "umt5", "num_heads": TEXT_HEADS,
    "num_layers": TEXT_LAYERS, "pad_token_id": 0, "eos_token_id": 1,
    "relative_attention_max_distance": 128, "relative_attention_num_buckets": 32,
    "tie_word_embeddings": False, "torch_dtype": "bfloat16", "vocab_size": VOCAB,
}  # fmt: skip
SCHEDULER = {
    "_class_name": "UniPCMultistepScheduler", "disable_corrector": [], "final_sigmas_type": "zero",
    "flow_shift": 3.0, "lower_order_final": True, "num_train_timesteps": 1000, "predict_x0": True,
    "prediction_type": "flow_prediction", "solver_order": 2, "solver_p": None, "solver_type": "bh2",
    "thresholding": False, "use_flow_sigmas": True,
}  # fmt: skip
INDEX = {
    "_class_name": "WanPipeline", "_diffusers_version": "0.33.0",
    "scheduler": ["diffusers", "UniPCMultistepScheduler"],
    "text_encoder": ["transformers", "UMT5EncoderModel"], "tokenizer": ["transformers", "T5TokenizerFast"],
    "transformer": ["diffusers", "WanTransformer3DModel"], "vae": ["diffusers", "AutoencoderKLWan"],
}  # fmt: skip


def transformer_names():
    """(diffusers name, original name, shape)"""

    def linear(ours, theirs, rows, cols):
        return [(ours + ".weight", theirs + ".weight", (rows, cols)), (ours + ".bias", theirs + ".bias", (rows,))]

    out = [("patch_embedding.weight", "patch_embedding.weight", (D, Z, 1, 2, 2))]
    out += [("patch_embedding.bias", "patch_embedding.bias", (D,))]
    c = "condition_embedder."
    out += linear(c + "time_embedder.linear_1", "time_embedding.0", D, 256)
    out += linear(c + "time_embedder.linear_2", "time_embedding.2", D, D)
    out += linear(c + "time_proj", "time_projection.1", 6 * D, D)
    out += linear(c + "text_embedder.linear_1", "text_embedding.0", D, TEXT)
    out += linear(c + "text_embedder.linear_2", "text_embedding.2", D, D)
    for i in range(LAYERS):
        b = f"blocks.{i}."
        out += [(b + "scale_shift_table", b + "modulation", (1, 6, D))]
        for ours, theirs in (("attn1", "self_attn"), ("attn2", "cross_attn")):
            for x, y in (("to_q", "q"), ("to_k", "k"), ("to_v", "v"), ("to_out.0", "o")):
                out += linear(f"{b}{ours}.{x}", f"{b}{theirs}.{y}", D, D)
            for x in ("norm_q", "norm_k"):
                out += [(f"{b}{ours}.{x}.weight", f"{b}{theirs}.{x}.weight", (D,))]
        for x in ("weight", "bias"):
            out += [(f"{b}norm2.{x}", f"{b}norm3.{x}", (D,))]
        out += linear(b + "ffn.net.0.proj", b + "ffn.0", FFN, D)
        out += linear(b + "ffn.net.2", b + "ffn.2", D, FFN)
    out += [("scale_shift_table", "head.modulation", (1, 2, D))]
    return out + linear("proj_out", "head.head", 4 * Z, D)


def text_names():
    out = [("shared.weight", None, (VOCAB, TEXT))]
    for i in range(TEXT_LAYERS):
        a, f = f"encoder.block.{i}.layer.0.", f"encoder.block.{i}.layer.1."
        inner = TEXT_HEADS * 64
        out += [(a + f"SelfAttention.{x}.weight", None, (inner, TEXT)) for x in "qkv"]
        out += [(a + "SelfAttention.o.weight", None, (TEXT, inner))]
        out += [(a + "SelfAttention.relative_attention_bias.weight", None, (32, TEXT_HEADS))]
        out += [(a + "layer_norm.weight", None, (TEXT,)), (f + "layer_norm.weight", None, (TEXT,))]
        out += [(f + f"DenseReluDense.{x}.weight", None, (TEXT_FF, TEXT)) for x in ("wi_0", "wi_1")]
        out += [(f + "DenseReluDense.wo.weight", None, (TEXT, TEXT_FF))]
    return out + [("encoder.final_layer_norm.weight", None, (TEXT,))]


def vae_names():
    out = []

    def conv(ours, theirs, *shape):
        out.append((ours + ".weight", theirs + ".weight", shape))
        out.append((ours + ".bias", theirs + ".bias", shape[:1]))

    def gamma(ours, theirs, c, dims=3):
        out.append((ours + ".gamma", theirs + ".gamma", (c,) + (1,) * dims))

    def resnet(ours, theirs, cin, cout):
        gamma(ours + ".norm1", theirs + ".residual.0", cin)
        conv(ours + ".conv1", theirs + ".residual.2", cout, cin, 3, 3, 3)
        gamma(ours + ".norm2", theirs + ".residual.3", cout)
        conv(ours + ".conv2", theirs + ".residual.6", cout, cout, 3, 3, 3)
        if cin != cout:
            conv(ours + ".conv_shortcut", theirs + ".shortcut", cout, cin, 1, 1, 1)

    def middle(side, c):
        resnet(f"{side}.mid_block.resnets.0", f"{side}.middle.0", c, c)
        gamma(f"{side}.mid_block.attentions.0.norm", f"{side}.middle.1.norm", c, 2)
        conv(f"{side}.mid_block.attentions.0.to_qkv", f"{side}.middle.1.to_qkv", 3 * c, c, 1, 1)
        conv(f"{side}.mid_block.attentions.0.proj", f"{side}.middle.1.proj", c, c, 1, 1)
        resnet(f"{side}.mid_block.resnets.1", f"{side}.middle.2", c, c)

    widths = [BASE * m for m in VAE["dim_mult"]]
    conv("encoder.conv_in", "encoder.conv1", BASE, 3, 3, 3, 3)
    at, c = 0, BASE
    for level, width in enumerate(widths):
        for _ in range(2):
            resnet(f"encoder.down_blocks.{at}", f"encoder.downsamples.{at}", c, width)
            at, c = at + 1, width
        if level < 3:
            ours, theirs = f"encoder.down_blocks.{at}", f"encoder.downsamples.{at}"
            conv(ours + ".resample.1", theirs + ".resample.1", c, c, 3, 3)
            if VAE["temperal_downsample"][level]:
                conv(ours + ".time_conv", theirs + ".time_conv", c, c, 3, 1, 1)
            at += 1
    middle("encoder", c)
    gamma("encoder.norm_out", "encoder.head.0", c)
    conv("encoder.conv_out", "encoder.head.2", 2 * Z, c, 3, 3, 3)
    conv("quant_conv", "conv1", 2 * Z, 2 * Z, 1, 1, 1)
    conv("post_quant_conv", "conv2", Z, Z, 1, 1, 1)
    conv("decoder.conv_in", "decoder.conv1", c, Z, 3, 3, 3)
    middle("decoder", c)
    for level, width in enumerate(reversed(widths)):
        for i in range(3):
            resnet(f"decoder.up_blocks.{level}.resnets.{i}", f"decoder.upsamples.{4 * level + i}", c, width)
            c = width
        if level < 3:
            ours, theirs = f"decoder.up_blocks.{level}.upsamplers.0", f"decoder.upsamples.{4 * level + 3}"
            conv(ours + ".resample.1", theirs + ".resample.1", c // 2, c, 3, 3)
            if VAE["temperal_downsample"][2 - level]:
                conv(ours + ".time_conv", theirs + ".time_conv", 2 * c, c, 3, 1, 1)
            c //= 2
    gamma("decoder.norm_out", "decoder.head.0", c)
    conv("decoder.conv_out", "decoder.head.2", 3, c, 3, 3, 3)
    return out


POOL = 262147  # a prime: rows of a matrix start at different places of it
pools = {}


def pool(std, mean):
    """POOL random bf16 values, as bytes; uniform."""
    if (std, mean) not in pools:
        r = random.Random(len(pools))
        wide = array.array("f", (mean + std * 3.4641016 * (r.random() - 0.5) for _ in range(POOL))).tobytes()
        half = bytearray(2 * POOL)
        half[0::2], half[1::2] = wide[2::4], wide[3::4]  # the upper half of a little-endian fp32
        pools[std, mean] = bytes(half)
    return pools[std, mean]


def scale(name, shape):
    if name.endswith("bias"):
        return 0.02, 0.0
    if name.endswith("gamma") or (name.endswith("weight") and len(shape) == 1):
        return 0.05, 1.0
    if name == "shared.weight":
        return 1.0, 0.0
    if name.endswith("relative_attention_bias.weight"):
        return 0.5, 0.0
    if name.endswith("weight"):
        return 1.0 / math.sqrt(math.prod(shape[1:])), 0.0
    return 0.1, 0.0


def fill(path, begin, tensors, worker, workers):
    """Every workers-th tensor, to its place behind `begin`."""
    with open(path, "r+b", buffering=0) as f:
        at = begin
        for k, (_, scaled_as, shape) in enumerate(tensors):
            size = 2 * math.prod(shape)
            if k % workers == worker:
                values = pool(*scale(scaled_as, shape))
                left, start = size, 2 * (k * 7919 % POOL)
                f.seek(at)
                while left:
                    left -= f.write(values[start : start + left])
                    start = 0
            at += size


def write(path, tensors):
    """tensors: (name, name that scales it, shape). bf16 safetensors, by as many processes as pay."""
    head, at = {}, 0
    for name, _, shape in tensors:
        size = 2 * math.prod(shape)
        head[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(head, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    for _, scaled_as, shape in tensors:  # drawn once, in the order of the tensors
        pool(*scale(scaled_as, shape))
    with open(path + ".part", "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text)
        f.truncate(8 + len(text) + at)
    workers = min(8, os.cpu_count() or 1) if at > 1 << 30 else 1
    children = []
    for worker in range(workers):
        pid = os.fork()
        if pid == 0:
            try:
                fill(path + ".part", 8 + len(text), tensors, worker, workers)
            except BaseException as e:
                print(f"{path}: {e}", file=sys.stderr, flush=True)
                os._exit(1)
            os._exit(0)
        children.append(pid)
    if any([os.waitpid(pid, 0)[1] for pid in children]):  # all are waited for
        sys.exit(f"{path} could not be written")
    os.replace(path + ".part", path)
    print(f"{path}: {at / 1e9:.2f} GB, {len(tensors)} tensors", flush=True)


def config(folder, name, value):
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, name), "w") as f:
        json.dump(value, f, indent=2)
        f.write("\n")


def main():
    args = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    args.add_argument("dir")
    args.add_argument("--size", choices=SIZES, default="1.3b")
    args.add_argument("--text", metavar="FOLDER")
    args.add_argument("--original", action="store_true")
    args.add_argument("--names", action="store_true")
    a = args.parse_args()
    global D, FFN, LAYERS
    D, FFN, LAYERS = SIZES[a.size]
    parts = {
        "transformer": (transformer_config(), "diffusion_pytorch_model.safetensors", transformer_names()),
        "vae": (VAE, "diffusion_pytorch_model.safetensors", vae_names()),
        "text_encoder": (TEXT_ENCODER, "model.safetensors", text_names()),
    }
    if a.names:
        for part, (_, _, names) in parts.items():
            count = sum(math.prod(shape) for _, _, shape in names)
            print(f"{part}: {len(names)} tensors, {count / 1e9:.4f} billion parameters")
        return
    config(a.dir, "model_index.json", INDEX)
    config(os.path.join(a.dir, "scheduler"), "scheduler_config.json", SCHEDULER)
    shutil.copytree(os.path.join(EMBEDDED, "tokenizer"), os.path.join(a.dir, "tokenizer"), dirs_exist_ok=True)
    for part, (values, file, names) in parts.items():
        folder = os.path.join(a.dir, part)
        if part == "text_encoder" and a.text and not os.path.exists(folder):
            os.symlink(os.path.abspath(a.text), folder)
        config(folder, "config.json", values)
        if not os.path.exists(os.path.join(folder, file)):
            write(os.path.join(folder, file), [(n, n, shape) for n, _, shape in names])
    if a.original:
        folder = os.path.join(a.dir, "original")
        os.makedirs(folder, exist_ok=True)
        for part, file in (("transformer", "wan13b.safetensors"), ("vae", "wan_vae.safetensors")):
            if not os.path.exists(os.path.join(folder, file)):
                write(os.path.join(folder, file), [(theirs, n, shape) for n, theirs, shape in parts[part][2]])


if __name__ == "__main__":
    main()
