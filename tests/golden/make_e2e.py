"""Goldens of whole runs with the embedded model: data/e2e.safetensors, from diffusers' WanPipeline.

Per case K: K.latents [16, T, h, w] fp32, as they go into the VAE's door (normalised); K.png: every
stride-th frame, bytes rounded to nearest, one under the other in one PNG; K.settings int32 [width, height,
frames, steps, seed, stride, guidance * 1000, whether the few-step adapter is loaded]; K.bf16_db, of
clips that bf16 is judged by: PSNR of the reference's own bf16 against its fp32 frames, rounded in two
ways: a bf16 pipeline, and the fp32 one under autocast.

Bf16 takes the reference itself to 35 to 49 dB, by the clip: at a fork of the denoising rounding decides
what it becomes. So the twelve prompts of BF16 were written down before anything was measured, a clip's
seed is its number, and what is compared is the mean over all of them. Other cases are for the exact
path: sizes, a negative prompt, strides, the adapter.

Prompts are in the metadata. The reference runs on the CPU; it takes minutes. The file is made anew
whenever the embedded model changes: nothing depends on its sizes.
"""

import io
import os
import sys

import diffusers
import numpy as np
import torch
from diffusers import AutoencoderKLWan, WanPipeline
from PIL import Image
from safetensors.numpy import save_file

HERE = os.path.dirname(os.path.abspath(__file__))
MODEL = os.path.join(HERE, "..", "..", "assets", "emoji")

BF16 = [
    ("a pink octopus bounces at sunset", ""),
    ("a rocket flies up in outer space", ""),
    ("a red balloon floats over green hills", "a black cat"),
    ("two red fish swim to the left in the sea", ""),
    ("a yellow duck walks to the right on the beach", ""),
    ("a cat jumps in a grassy field", ""),
    ("a butterfly circles around in a flower garden", ""),
    ("a green car drives left at night in a city", ""),
    ("a big shark moves left underwater", ""),
    ("an owl sits in a forest and a star spins", "blurry"),
    ("a purple heart grows on a white background", ""),
    ("a dog moves right and a bee flies up in the rain", ""),
]
# prompt, negative prompt, width, height, frames, steps, seed, guidance, stride, few steps
CASES = [(p, n, 64, 64, 5, 8, i, 4.0, 1, False) for i, (p, n) in enumerate(BF16)] + [
    ("a red balloon floats over  green hills", "a black cat", 96, 64, 9, 6, 42, 4.0, 2, False),
    ("“two” red fish swim to the left in the sea", "", 128, 128, 9, 4, 7, 4.0, 4, False),
    ("a big shark swims left underwater", "", 128, 128, 9, 4, 7, 1.0, 4, True),
]


def load(dtype=torch.float32):
    vae = AutoencoderKLWan.from_pretrained(MODEL, subfolder="vae", dtype=dtype)
    pipe = WanPipeline.from_pretrained(MODEL, vae=vae, dtype=dtype)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def run(pipe, prompt, negative, width, height, frames, steps, seed, guidance, kind):
    return pipe(
        prompt,
        negative_prompt=negative,
        width=width,
        height=height,
        num_frames=frames,
        num_inference_steps=steps,
        guidance_scale=guidance,
        generator=torch.Generator().manual_seed(seed),
        output_type=kind,
    ).frames


def main():
    torch.manual_seed(0)
    pipe, half = load(), load(torch.bfloat16)
    out, words = {}, {"torch": torch.__version__, "diffusers": diffusers.__version__}
    for k, (prompt, negative, width, height, frames, steps, seed, guidance, stride, few) in enumerate(CASES):
        pipe.unload_lora_weights()
        if few:
            pipe.load_lora_weights(os.path.join(MODEL, "transformer_turbo"))
        settings = (prompt, negative, width, height, frames, steps, seed, guidance, "latent")
        latents = run(pipe, *settings)
        video = decode(pipe, latents)
        out[f"{k}.latents"] = latents[0].numpy()
        frames = np.round(video * 255).astype(np.uint8)[::stride]
        out[f"{k}.png"] = png(frames)
        out[f"{k}.settings"] = np.array(
            [width, height, frames, steps, seed, stride, round(guidance * 1000), few], np.int32
        )
        if k < len(BF16):
            with torch.autocast("cpu", torch.bfloat16):
                mixed = run(pipe, *settings).float()
            rough = [psnr(decode(pipe, x), video) for x in (run(half, *settings).float(), mixed)]
            out[f"{k}.bf16_db"] = np.array(rough, np.float32)
            print(prompt, "bf16 {:.1f} dB, autocast {:.1f} dB".format(*rough), flush=True)
        words[f"{k}.prompt"], words[f"{k}.negative"] = prompt, negative
        if len(sys.argv) > 1:  # a folder to look at the frames in
            Image.fromarray(np.concatenate(list(frames), 1)).save(f"{sys.argv[1]}/e2e{k}.png")
    path = os.path.join(HERE, "data", "e2e.safetensors")
    save_file(out, path, metadata=words)
    print(path, os.path.getsize(path), "bytes")


def png(frames):
    """[n, H, W, 3] bytes -> the file's bytes: a third of theirs, and nothing is lost."""
    file = io.BytesIO()
    Image.fromarray(np.concatenate(list(frames))).save(file, "png", optimize=True)
    return np.frombuffer(file.getvalue(), np.uint8)


def psnr(a, b):
    apart = (np.round(a * 255) - np.round(b * 255)).astype(np.float64)
    return 10 * np.log10(255**2 / max(1e-9, np.mean(apart**2)))


def decode(pipe, latents):
    """The tail of WanPipeline.__call__: floats in [0, 1], [n, H, W, 3]."""
    c = pipe.vae.config
    mean = torch.tensor(c.latents_mean).view(1, -1, 1, 1, 1)
    std = 1.0 / torch.tensor(c.latents_std).view(1, -1, 1, 1, 1)
    with torch.no_grad():
        video = pipe.vae.decode(latents / std + mean, return_dict=False)[0]
    return pipe.video_processor.postprocess_video(video, output_type="np")[0]


if __name__ == "__main__":
    main()
