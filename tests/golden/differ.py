"""Random tiny pipelines, run by diffusers and by ditgen, and compared: by hand, never a test of ctest.

    python3 tests/golden/differ.py 200 [--ditgen build/app/ditgen] [--first SEED] [--keep DIR]

A pipeline is drawn from its seed: sizes, layers, heads and patches of all three models (from seed 200 on
patches that are not square), their optional parts, the scheduler and its options, latents' means and
deviations, shards or one file or a variant, the type weights are stored in, prompts, the clip's size,
steps, guidance and seed. Both make latents and frames in fp32. One line a pipeline: relative L2 of the
latents and PSNR of the frames, or ditgen's refusal, which is printed whole: a refusal is right or a
fault, and a person decides. Exit code 1 when one differs by more than 1e-3 and 60 dB.
"""

import argparse
import os
import random
import shutil
import subprocess
import sys
import tempfile

import numpy as np
import torch

HERE = os.path.dirname(os.path.abspath(__file__))
WORDS = "a red cat, two fish swim left underwater at night é 猫 Ａ <extra_id_0> </s> &amp; “quoted”  spaces 🚀".split(" ")


def transformer(r, z, text_dim):
    from diffusers import WanTransformer3DModel

    return dict(
        num_attention_heads=r.choice([1, 2, 3]),
        attention_head_dim=r.choice([12, 16, 24, 32]),
        in_channels=z,
        out_channels=z,
        text_dim=text_dim,
        freq_dim=r.choice([8, 32, 256]),
        ffn_dim=r.choice([16, 40, 96]),
        num_layers=r.choice([1, 2, 3]),
        patch_size=r.choice([(1, 2, 2), (1, 2, 2), (1, 1, 1)]),
        cross_attn_norm=r.choice([True, True, False]),
        eps=r.choice([1e-6, 1e-5]),
        rope_max_seq_len=r.choice([64, 1024]),
    ), WanTransformer3DModel


def autoencoder(r):
    from diffusers import AutoencoderKLWan

    z = r.choice([2, 4, 16])
    return dict(
        base_dim=r.choice([4, 8, 12]),
        z_dim=z,
        dim_mult=r.choice([[1, 2, 4, 4], [1, 2, 2, 4]]),
        num_res_blocks=r.choice([1, 2]),
        temperal_downsample=[False, True, True],
        latents_mean=[r.uniform(-1, 1) for _ in range(z)],
        latents_std=[r.uniform(0.5, 3) for _ in range(z)],
    ), AutoencoderKLWan


def encoder(r):
    from transformers import UMT5Config

    return UMT5Config(
        vocab_size=r.choice([1024, 1100]),
        d_model=r.choice([16, 24, 64]),
        d_kv=r.choice([4, 8, 12]),
        num_heads=r.choice([1, 2, 4]),
        d_ff=r.choice([16, 48]),
        num_layers=r.choice([1, 2, 3]),
        feed_forward_proj="gated-gelu",
        relative_attention_num_buckets=r.choice([8, 32]),
        relative_attention_max_distance=r.choice([20, 128]),
        layer_norm_epsilon=r.choice([1e-6, 1e-5]),
    )


def scheduler(r):
    import diffusers

    shift = r.choice([1.0, 3.0, 5.0])
    flow = dict(use_flow_sigmas=True, prediction_type="flow_prediction", flow_shift=shift)
    return r.choice(
        [
            diffusers.UniPCMultistepScheduler(**flow),
            diffusers.UniPCMultistepScheduler(solver_type=r.choice(["bh2", "midpoint"]), **flow),
            diffusers.DPMSolverMultistepScheduler(**flow),
            diffusers.FlowMatchEulerDiscreteScheduler(shift=shift),
        ]
    )


def side(patch, pixels):
    return pixels * 3 if patch == 3 else max(pixels, 8 * patch)


def build(seed):
    from diffusers import WanPipeline
    from transformers import PreTrainedTokenizerFast, UMT5EncoderModel

    r = random.Random(seed)
    torch.manual_seed(seed)
    v, vae_class = autoencoder(r)
    c = encoder(r)
    t, dit_class = transformer(r, v["z_dim"], c.d_model)
    name = r.choice(["old", "new", "bytes", "odd"])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_file=os.path.join(HERE, "data", "text_tok_" + name, "tokenizer.json"), pad_token="<pad>", eos_token="</s>"
    )
    if seed >= 200:  # after what 0 to 199 draw, so that these stay what they were
        t["patch_size"] = random.Random(seed).choice([(1, 1, 2), (1, 2, 1), (1, 4, 2), (1, 2, 3), (1, 3, 1)])
    pipe = WanPipeline(tokenizer, UMT5EncoderModel(c).eval(), vae_class(**v).eval(), scheduler(r), dit_class(**t).eval())
    pipe.set_progress_bar_config(disable=True)
    unit = 16 * r.choice([1, 1, 2])
    call = dict(
        prompt=" ".join(r.choice(WORDS) for _ in range(r.randint(0, 12))),
        negative_prompt=r.choice(["", "blurry, " + r.choice(WORDS)]),
        width=side(t["patch_size"][2], unit * r.choice([2, 3])),
        height=side(t["patch_size"][1], unit * r.choice([1, 2])),
        num_frames=4 * r.choice([0, 1, 2]) + 1,
        num_inference_steps=r.choice([1, 2, 3, 5]),
        guidance_scale=r.choice([1.0, 1.5, 4.0]),
    )
    store = dict(dtype=r.choice([None, None, torch.bfloat16, torch.float16]), variant=r.choice([None, None, "fp16"]),
                 shard=r.choice(["5GB", "40KB"]))  # fmt: skip
    return pipe, call, store, r.randrange(2**31)


def save(pipe, folder, store):
    """Weights are rounded to the stored type first, so that both sides hold the same."""
    if store["dtype"]:
        for part in (pipe.transformer, pipe.text_encoder, pipe.vae):
            for p in part.parameters():
                p.data = p.data.to(store["dtype"]).float()
    pipe.save_pretrained(folder, variant=store["variant"], max_shard_size=store["shard"])


def ours(exe, folder, call, seed, out):
    words = [exe, call["prompt"], "-m", folder, "-n", call["negative_prompt"], "--seed", str(seed)]
    words += ["--size", "{width}x{height}".format(**call), "--frames", str(call["num_frames"])]
    words += ["--steps", str(call["num_inference_steps"]), "--guidance-scale", str(call["guidance_scale"])]
    words += ["--precision", "fp32", "--save-latents", out + ".safetensors", "-o", out + "/", "-y", "-q", "-t", "1", "--device", "cpu"]
    return subprocess.run(words, capture_output=True, text=True, stdin=subprocess.DEVNULL)


def compare(pipe, call, seed, out):
    from PIL import Image
    from safetensors.numpy import load_file

    with torch.no_grad():
        latents = pipe(**call, generator=torch.Generator().manual_seed(seed), output_type="latent").frames
        c = pipe.vae.config
        mean, std = (torch.tensor(x).view(1, -1, 1, 1, 1) for x in (c.latents_mean, c.latents_std))
        video = pipe.vae.decode(latents * std + mean, return_dict=False)[0]
    frames = np.round(pipe.video_processor.postprocess_video(video, output_type="np")[0] * 255)
    (got,) = load_file(out + ".safetensors").values()
    want = latents[0].numpy().ravel()
    apart = np.linalg.norm(got.astype(np.float64).ravel() - want) / np.linalg.norm(want)
    names = sorted(n for n in os.listdir(out) if n.endswith(".png"))
    pictures = np.stack([np.asarray(Image.open(os.path.join(out, n)).convert("RGB")) for n in names]).astype(np.float64)
    assert pictures.shape == frames.shape, (pictures.shape, frames.shape)
    return apart, 10 * np.log10(255**2 / max(1e-9, np.mean((pictures - frames) ** 2)))


def main():
    a = argparse.ArgumentParser()
    a.add_argument("n", type=int)
    a.add_argument("--first", type=int, default=0)
    a.add_argument("--ditgen", default=os.path.join(HERE, "..", "..", "build", "app", "ditgen"))
    a.add_argument("--keep", help="a folder that keeps the pipelines that differ")
    a = a.parse_args()
    torch.set_num_threads(1)
    agree = refused = differ = broken = 0
    for seed in range(a.first, a.first + a.n):
        with tempfile.TemporaryDirectory() as top:
            folder, out = os.path.join(top, "model"), os.path.join(top, "clip")
            try:
                pipe, call, store, noise = build(seed)
                save(pipe, folder, store)
            except Exception as x:  # what the reference itself will not have
                broken += 1
                print(seed, "not built:", type(x).__name__, str(x)[:150], flush=True)
                continue
            r = ours(a.ditgen, folder, call, noise, out)
            if r.returncode:
                refused += 1
                print(seed, "refused, exit", r.returncode, r.stderr.replace(top, "").strip()[:300], flush=True)
                continue
            try:
                apart, db = compare(pipe, call, noise, out)
            except Exception as x:
                broken += 1
                print(seed, "not run by the reference:", type(x).__name__, str(x)[:150], flush=True)
                continue
            good = apart <= 1e-3 and db >= 60
            agree, differ = agree + good, differ + (not good)
            print(seed, "latents %.2g, frames %.1f dB%s" % (apart, db, "" if good else "  DIFFERS"), store, flush=True)
            if not good and a.keep:
                shutil.copytree(top, os.path.join(a.keep, str(seed)), dirs_exist_ok=True)
    print("%d agree, %d differ, %d refused, %d not built or run by the reference" % (agree, differ, refused, broken))
    return differ > 0


if __name__ == "__main__":
    sys.exit(main())
