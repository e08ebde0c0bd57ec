"""Golden answers of the VAE: diffusers' AutoencoderKLWan, CPU, fp32, chunked as it always runs.

Writes data/vae_NAME.txt (tensor names and shapes of a tiny VAE), data/vae_NAME.json (its config) and
data/vae.safetensors. Read by tests/unit/vae/test_vae.c.
"""

import json
import sys
from pathlib import Path

import torch
from diffusers import AutoencoderKLWan
from safetensors.torch import save_file

import tiny

ROOT = Path(__file__).resolve().parents[2]
DATA = Path(__file__).resolve().parent / "data"

TINY = {
    "wan21": dict(base_dim=8, z_dim=16, num_res_blocks=1),
    "wan21_two": dict(base_dim=8, z_dim=16, num_res_blocks=2),
    "wan22": dict(base_dim=8, decoder_base_dim=16, z_dim=8, num_res_blocks=1, is_residual=True, in_channels=12,
                  out_channels=12, patch_size=2, scale_factor_spatial=16),
}
# name, latent frames, latent height, latent width
CASES = [("wan21", 1, 3, 5), ("wan21", 2, 3, 2), ("wan21", 3, 2, 3), ("wan21", 4, 2, 1), ("wan21_two", 3, 2, 3),
         ("wan22", 1, 2, 1), ("wan22", 3, 1, 2)]


def pipeline_decode(vae, latents):
    """latents as the transformer leaves them → frames [F, H, W, 3], as WanPipeline does it."""
    c = vae.config
    mean = torch.tensor(c.latents_mean).view(1, -1, 1, 1, 1)
    inverse = 1.0 / torch.tensor(c.latents_std).view(1, -1, 1, 1, 1)
    video = vae.decode(latents[None] / inverse + mean, return_dict=False)[0][0]
    return video.permute(1, 2, 3, 0).contiguous()


def pipeline_encode(vae, rgb):
    c = vae.config
    mean = torch.tensor(c.latents_mean).view(1, -1, 1, 1, 1)
    inverse = 1.0 / torch.tensor(c.latents_std).view(1, -1, 1, 1, 1)
    z = vae.encode(rgb.permute(3, 0, 1, 2)[None].contiguous()).latent_dist.mode()
    return ((z - mean) * inverse)[0].contiguous()


def saw(frames, h, w):
    """[F, H, W, 3] in [-1, 1), exact in fp32: the same expression as in test_vae.c."""
    f, y, x, c = torch.meshgrid(*[torch.arange(n) for n in (frames, h, w, 3)], indexing="ij")
    return ((x * 3 + y * 2 + f * 5 + c * 21) % 64).float() / 32 - 1


def main():
    torch.set_grad_enabled(False)
    out = {}
    for name, settings in TINY.items():
        z = settings["z_dim"]
        settings["latents_mean"] = [float(v) for v in tiny.fill("latents_mean", (z,), 0.5, 0.0)]
        settings["latents_std"] = [float(v) for v in tiny.fill("latents_std", (z,), 0.3, 1.2)]
        vae = tiny.fill_module(AutoencoderKLWan(**settings).eval())
        tiny.write_list(vae, DATA / f"vae_{name}.txt")
        config = {"_class_name": "AutoencoderKLWan", **{k: v for k, v in vae.config.items() if not k.startswith("_")}}
        (DATA / f"vae_{name}.json").write_text(json.dumps(config, indent=1) + "\n")
        scale = settings.get("scale_factor_spatial", 8)
        for case, t, h, w in CASES:
            if case != name:
                continue
            latents = torch.from_numpy(tiny.fill("latents", (z, t, h, w)))
            frames = pipeline_decode(vae, latents)
            rgb = torch.from_numpy(tiny.fill("rgb", (1 + 4 * (t - 1), h * scale, w * scale, 3), 0.5))
            key = f"{name}.{t}x{h}x{w}"
            out[f"{key}.frames"] = frames
            out[f"{key}.latents"] = pipeline_encode(vae, rgb)
            print(key, "clamped", float((frames.abs() == 1).float().mean()), "std", float(frames.std()))
    vae = AutoencoderKLWan.from_pretrained(ROOT / "assets/emoji/vae", torch_dtype=torch.float32).eval()
    latents = pipeline_encode(vae, saw(9, 64, 64))
    out["emoji.latents"] = latents
    frames = pipeline_decode(vae, latents)
    out["emoji.frames"] = frames.reshape(-1)[::5].contiguous()  # every fifth value: all frames, rows, colours
    print("emoji", float(frames.std()))
    save_file(out, DATA / "vae.safetensors")


if __name__ == "__main__":
    sys.exit(main())
