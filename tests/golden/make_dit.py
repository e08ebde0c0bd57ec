#!/usr/bin/env python3
"""Golden numbers of the transformer, from diffusers' WanTransformer3DModel on the CPU.

    python tests/golden/make_dit.py [ASSETS/emoji/transformer]

Writes tests/golden/data/dit_*: configs and tensor lists of the tiny models (their weights are drawn on
both sides, tiny.py), one adapter, and dit_golden.safetensors with what the reference answers. Inputs are
drawn too: latents, text and image are tiny.fill("dit.latents" | "dit.text" | "dit.image", std 1). Run it
again when the embedded model changes.
"""

import json
import os
import re
import sys

import torch
from diffusers import WanTransformer3DModel
from diffusers.models.embeddings import get_timestep_embedding
from diffusers.models.transformers.transformer_wan import WanRotaryPosEmbed
from safetensors.torch import save_file

import tiny

HERE = os.path.dirname(os.path.abspath(__file__))
DATA = os.path.join(HERE, "data")
TEXT_LEN = 512

BASE = dict(num_attention_heads=2, attention_head_dim=16, in_channels=16, out_channels=16, text_dim=32,
            freq_dim=256, ffn_dim=56, num_layers=2, rope_max_seq_len=32)
IMAGE = dict(in_channels=36, image_dim=16, added_kv_proj_dim=32)
CONFIGS = {
    "t2v": BASE,
    "wide": dict(BASE, attention_head_dim=128, ffn_dim=512),
    "i2v": dict(BASE, **IMAGE),
    "flf": dict(BASE, **IMAGE, pos_embed_seq_len=34),
    "ti2v": dict(BASE, in_channels=48, out_channels=48),
    # nothing round: three heads of 12, other patches, no norm before cross-attention
    "odd": dict(BASE, num_attention_heads=3, attention_head_dim=12, in_channels=5, out_channels=7,
                patch_size=(1, 1, 3), freq_dim=40, cross_attn_norm=False, eps=1e-5, text_dim=20),
}
# name: (config, frames, height, width, text rows, timestep, image rows)
RUNS = {
    "t2v": ("t2v", 3, 6, 10, 5, 999.0, 0),
    "t2v_one": ("t2v", 1, 2, 2, 1, 1.0, 0),
    "t2v_full": ("t2v", 2, 8, 4, 512, 417.0, 0),
    "t2v_wide": ("wide", 2, 6, 4, 20, 731.25, 0),
    "i2v": ("i2v", 2, 4, 6, 7, 850.0, 17),
    "flf": ("flf", 3, 4, 4, 9, 900.0, 34),
    "odd": ("odd", 3, 5, 9, 3, 333.0, 0),
}
FRAMES_RUN = ("ti2v", 3, 4, 6, 6, [0.0, 700.0, 700.0])
SINUSOID_TIMES = [0.0, 1.0, 417.0, 731.25, 999.0]


def draw(name, *shape):
    return torch.from_numpy(tiny.fill(name, shape, 1.0, 0.0))


def text_rows(n, dim):
    return torch.cat([draw("dit.text", n, dim), torch.zeros(TEXT_LEN - n, dim)])[None]


def keep_fp32(name):
    """Parameters that a bf16 load leaves in fp32: WanTransformer3DModel._keep_in_fp32_modules."""
    return any(part in WanTransformer3DModel._keep_in_fp32_modules for part in re.split(r"\.", name))


def to_bf16(model):
    for name, p in model.named_parameters():
        if not keep_fp32(name):
            p.data = p.data.to(torch.bfloat16)
    return model


@torch.no_grad()
def forward(model, frames, height, width, n, timestep, image_rows=0, dtype=torch.float32):
    c = model.config
    latents = draw("dit.latents", c.in_channels, frames, height, width)[None]
    image = None
    if image_rows:
        image = draw("dit.image", image_rows, c.image_dim)[None].to(dtype)
        if c.pos_embed_seq_len:  # two images, as the pipeline passes them
            image = image.view(2, image_rows // 2, c.image_dim)
    if isinstance(timestep, list):
        a_frame = height // c.patch_size[1] * (width // c.patch_size[2])
        timestep = torch.tensor(timestep).repeat_interleave(a_frame)[None]
    else:
        timestep = torch.tensor([timestep])
    out = model(latents.to(dtype), timestep, text_rows(n, c.text_dim).to(dtype), image, return_dict=False)
    return out[0][0].float()


def tiny_model(name):
    model = WanTransformer3DModel(**CONFIGS[name]).eval()
    tiny.fill_module(model)
    return model


@torch.no_grad()
def conditioning(model, timestep):
    """temb and time6 of one timestep, and what each block makes of it."""
    e = model.condition_embedder
    temb = e.time_embedder(e.timesteps_proj(torch.tensor([timestep])))
    return temb[0], e.time_proj(e.act_fn(temb))[0]


def block_outputs(model, run):
    seen = []
    hooks = [b.register_forward_hook(lambda m, i, o: seen.append(o[0].clone())) for b in model.blocks]
    forward(model, *run)
    for h in hooks:
        h.remove()
    return seen


def adapter(out):
    """Three modules with ranks and alphas by regular expressions, loaded by diffusers and peft themselves."""
    from peft import LoraConfig

    model = tiny_model("t2v")
    params = dict(model.named_parameters())
    modules = (("blocks.0.attn1.to_q", 2), ("blocks.1.attn2.to_out.0", 3), ("blocks.1.ffn.net.2", 1))
    config = LoraConfig(
        r=2,
        lora_alpha=3.0,
        target_modules=[m for m, _ in modules],
        rank_pattern={r"blocks\.[1-9]\d*\.attn2\.to_(q|out\.0)": 3, "net.2": 1},
        alpha_pattern={r"^blocks\.0\.to_q": 9.0, r"attn2\.to_\w+\.\d": 1.0, "to_out.0": 7.0, r"^blocks.*net\.2": 5.0},
        lora_bias=True,
    )
    file = {}
    for module, rank in modules:
        w = params[module + ".weight"]
        key = "transformer." + module
        file[key + ".lora_A.weight"] = (draw("dit.lora_A." + module, rank, w.shape[1]) * 0.2).contiguous()
        file[key + ".lora_B.weight"] = (draw("dit.lora_B." + module, w.shape[0], rank) * 0.2).contiguous()
        file[key + ".lora_B.bias"] = (draw("dit.lora_bias." + module, w.shape[0]) * 0.1).contiguous()
    meta = {"transformer." + k: sorted(v) if isinstance(v, set) else v for k, v in config.to_dict().items()}
    save_file(file, os.path.join(DATA, "dit_lora.safetensors"),
              metadata={"lora_adapter_metadata": json.dumps(meta)})  # one key: same bytes
    model.load_lora_adapter(DATA, weight_name="dit_lora.safetensors", prefix="transformer", adapter_name="a")
    model.set_adapters("a", 0.75)
    out["lora.velocity"] = forward(model, *RUNS["t2v"][1:])


def main():
    embedded = sys.argv[1] if len(sys.argv) > 1 else os.path.join(HERE, "../../assets/emoji/transformer")
    os.makedirs(DATA, exist_ok=True)
    torch.set_num_threads(1)
    out = {}
    models = {}
    for name in CONFIGS:
        models[name] = tiny_model(name)
        config = {k: v for k, v in models[name].config.items() if not k.startswith("_")}
        config["_class_name"] = "WanTransformer3DModel"
        with open(os.path.join(DATA, f"dit_{name}.json"), "w") as f:
            json.dump(config, f, indent=1, sort_keys=True)
            f.write("\n")
        tiny.write_list(models[name], os.path.join(DATA, f"dit_{name}.txt"))
    for name, (config, *run) in RUNS.items():
        out[name + ".velocity"] = forward(models[config], *run)
    config, *run = FRAMES_RUN
    out["frames.velocity"] = forward(models[config], *run)
    for i, x in enumerate(block_outputs(models["t2v"], RUNS["t2v"][1:])):
        out[f"t2v.block{i}"] = x
    out["t2v.temb"], out["t2v.time6"] = conditioning(models["t2v"], RUNS["t2v"][5])
    adapter(out)

    out["sinusoid"] = get_timestep_embedding(torch.tensor(SINUSOID_TIMES), 256, flip_sin_to_cos=True,
                                             downscale_freq_shift=0)
    for dim in (16, 128):
        rope = WanRotaryPosEmbed(dim, (1, 2, 2), 32)
        cos, sin = rope(torch.zeros(1, 1, 3, 8, 10))
        # one value a pair: the reference repeats each
        out[f"rope{dim}.cos"] = cos[0, :, 0, 0::2].contiguous()
        out[f"rope{dim}.sin"] = sin[0, :, 0, 1::2].contiguous()

    for name in ("t2v", "i2v"):
        config, *run = RUNS[name]
        out[name + ".bf16"] = forward(to_bf16(models[config]), *run, dtype=torch.bfloat16)

    model = WanTransformer3DModel.from_pretrained(embedded, torch_dtype=torch.float32).eval()
    run = (3, 6, 10, 9, 650.0)
    out["emoji.velocity"] = forward(model, *run)
    out["emoji.bf16"] = forward(to_bf16(model), *run, dtype=torch.bfloat16)
    for name in ("t2v", "i2v", "emoji"):
        want, low = out[name + ".velocity"], out[name + ".bf16"]
        print(f"{name}: the reference's bf16 differs from its fp32 by {(low - want).norm() / want.norm():.3g}")
    save_file({k: v.contiguous().float() for k, v in out.items()},
              os.path.join(DATA, "dit_golden.safetensors"))


if __name__ == "__main__":
    main()
