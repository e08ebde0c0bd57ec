#!/usr/bin/env python3
"""The reference pipeline on PyTorch's CPU and ditgen, on the same weights, prompt, steps and size, in
one go: medians and ratios per phase, and the machine's peak in the same minutes.

    tests/bench/compare_pytorch.py --ditgen build/app/ditgen [--size 256x256] [--frames 33] [--steps 20]
                                   [--rounds 3] [--model DIR] [--prompt TEXT]

Wants the packages of tests/golden/requirements.txt and the tests of the build (for the peak). PyTorch runs in
each precision it can (bf16 is left out where one forward takes four times the fp32 one) with the best
thread count of 1..n, found first; ditgen chooses its own. PyTorch's loading and warming up are not
counted; ditgen's opening and packing of weights are, in a clip. Rounds alternate, so that a busy
neighbour hits both.
"""

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time

import numpy as np

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.join(HERE, "..", "..")


def arguments():
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument("--ditgen", default=os.path.join(ROOT, "build", "app", "ditgen"))
    a.add_argument("--model", default=os.path.join(ROOT, "assets", "emoji"))
    a.add_argument("--prompt", default="a rocket flies up in outer space")
    a.add_argument("--size", default="256x256")
    a.add_argument("--frames", type=int, default=33)
    a.add_argument("--steps", type=int, default=4, help="seconds a step do not depend on it")
    a.add_argument("--clip-steps", type=int, default=25, help="steps of the clip that is reckoned up")
    a.add_argument("--guidance", type=float, default=4.0)
    a.add_argument("--rounds", type=int, default=3)
    a.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), help="most of them")
    a.add_argument("--skip-bf16", action="store_true")
    return a.parse_args()


def cpu_flags():
    with open("/proc/cpuinfo") as f:
        m = re.search(r"^flags\s*:(.*)$", f.read(), re.M)
    return set(m.group(1).split()) if m else set()


def cpu_name():
    with open("/proc/cpuinfo") as f:
        m = re.search(r"^model name\s*:\s*(.*)$", f.read(), re.M)
    return m.group(1) if m else "unknown processor"


def fma_peak(ditgen, threads):
    """By the program that the tests' build makes: BUILD/tests/bench/fma_peak, ditgen being BUILD/app/ditgen."""
    build = os.path.dirname(os.path.dirname(os.path.abspath(ditgen)))
    exe = os.path.join(build, "tests", "bench", "fma_peak")
    return float(subprocess.run([exe, str(threads)], capture_output=True, text=True, check=True).stdout)


def gemm_peak(torch, dtype):
    """GFLOP/s of torch's matrix product, best of some."""
    n = 1536
    a, b = torch.randn(n, n, dtype=dtype), torch.randn(n, n, dtype=dtype)
    best = 1e9
    for _ in range(6):
        t = time.perf_counter()
        a @ b
        best = min(best, time.perf_counter() - t)
        if best > 5:
            break
    return 2e-9 * n**3 / best


def step_flops(config, tokens, text_rows, branches=2):
    """wan.md section 9, one guided step."""
    d, f, layers = config.num_attention_heads * config.attention_head_dim, config.ffn_dim, config.num_layers
    gemm = 8 * tokens * d * d + 4 * tokens * d * d + 4 * text_rows * d * d + 4 * tokens * d * f
    return branches * layers * (4 * tokens**2 * d + 4 * tokens * text_rows * d + gemm)


class Torch:
    """One precision of the reference pipeline."""

    def __init__(self, a, dtype_name, threads):
        import torch
        from diffusers import AutoencoderKLWan, WanPipeline

        self.torch, self.a, self.name = torch, a, dtype_name
        self.dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[dtype_name]
        self.width, self.height = map(int, a.size.split("x"))
        vae = AutoencoderKLWan.from_pretrained(a.model, subfolder="vae", dtype=self.dtype)
        self.pipe = WanPipeline.from_pretrained(a.model, vae=vae, dtype=self.dtype)
        self.pipe.set_progress_bar_config(disable=True)
        self.threads = self.best_threads(threads)

    def latent_shape(self):
        c = self.pipe.vae.config
        return (
            1,
            c.z_dim,
            (self.a.frames - 1) // c.scale_factor_temporal + 1,
            self.height // c.scale_factor_spatial,
            self.width // c.scale_factor_spatial,
        )

    def forward_seconds(self, n=1):
        torch, m = self.torch, self.pipe.transformer
        x = torch.randn(self.latent_shape(), dtype=self.dtype)
        text = torch.randn(1, 512, m.config.text_dim, dtype=self.dtype)
        best = 1e9
        with torch.no_grad():
            for _ in range(n):
                t = time.perf_counter()
                m(x, torch.tensor([500]), text, return_dict=False)
                best = min(best, time.perf_counter() - t)
        return best

    def best_threads(self, most):
        tried = sorted({n for n in [2**k for k in range(10)] + [most // 2, most] if 1 <= n <= most})
        times = {}
        for n in tried:
            self.torch.set_num_threads(n)
            self.forward_seconds()  # first call of a thread count packs and allocates
            times[n] = self.forward_seconds(2)
        print(f"PyTorch {self.name} forward by threads:", ", ".join(f"{n}: {t:.2f} s" for n, t in times.items()))
        self.forward = min(times.values())
        return min(times, key=times.get)

    def round(self):
        """{phase: seconds}, frames"""
        torch, a, pipe = self.torch, self.a, self.pipe
        torch.set_num_threads(self.threads)
        with torch.no_grad():
            t0 = time.perf_counter()
            text, negative = pipe.encode_prompt(a.prompt, "", True, max_sequence_length=512)
            t1 = time.perf_counter()
            marks = [t1]
            latents = pipe(
                prompt_embeds=text,
                negative_prompt_embeds=negative,
                width=self.width,
                height=self.height,
                num_frames=a.frames,
                num_inference_steps=a.steps,
                guidance_scale=a.guidance,
                generator=torch.Generator().manual_seed(0),
                output_type="latent",
                callback_on_step_end=lambda *x: marks.append(time.perf_counter()) or {},
            ).frames
            t2 = time.perf_counter()
            c = pipe.vae.config
            mean = torch.tensor(c.latents_mean).view(1, -1, 1, 1, 1).to(self.dtype)
            std = 1.0 / torch.tensor(c.latents_std).view(1, -1, 1, 1, 1).to(self.dtype)
            video = pipe.vae.decode(latents.to(self.dtype) / std + mean, return_dict=False)[0]
            frames = pipe.video_processor.postprocess_video(video, output_type="np")[0]
            t3 = time.perf_counter()
        steps = [b - a for a, b in zip(marks, marks[1:])]
        return {"text": t1 - t0, "step": statistics.median(steps), "decode": t3 - t2}, np.round(frames * 255)


class Ditgen:
    def __init__(self, a, precision):
        self.a, self.name, self.frames = a, precision, None

    def command(self, verb):
        a = self.a
        c = [a.ditgen, *verb, a.prompt, "-m", a.model, "--size", a.size, "--frames", str(a.frames)]
        c += ["--steps", str(a.steps), "--guidance-scale", str(a.guidance), "-n", "", "--seed", "0", "--device", "cpu"]
        return c + ["--solver", "unipc", "--precision", self.name]

    def run(self, command):
        r = subprocess.run(command, capture_output=True, text=True)
        if r.returncode != 0:
            sys.exit(f"{' '.join(command)}\n{r.stderr[-2000:]}")
        return r.stdout

    def round(self):
        if self.frames is None:  # once: it is the same clip every time
            with tempfile.TemporaryDirectory() as d:
                self.run(self.command(["generate"]) + ["-q", "-o", d + "/out/"])
                self.frames = read_frames(d + "/out")
        b = json.loads(self.run(self.command(["bench", "--runs", "1", "--json"])))
        m = {k: v["median"] for k, v in b["seconds"].items()}
        self.threads, self.peak = b["threads"], b["peak_fp32_gflops"]
        self.bytes = b["measured_bytes"]["peak"]
        return {"text": m["text"], "step": m["step"], "decode": m["decode"], "open": m["open"]}, self.frames


def read_frames(folder):
    from PIL import Image

    names = sorted(n for n in os.listdir(folder) if n.endswith(".png"))
    return np.stack([np.asarray(Image.open(os.path.join(folder, n)).convert("RGB"), np.float32) for n in names])


def psnr(a, b):
    return 10 * np.log10(255**2 / max(1e-12, float(np.mean((a - b) ** 2))))


def main():
    a = arguments()
    import torch

    print(f"{cpu_name()}, {a.threads} threads at most, PyTorch {torch.__version__}")
    print(f"{a.size}, {a.frames} frames, {a.steps} steps, guidance {a.guidance}, {a.rounds} rounds, medians")
    flags = cpu_flags()
    fast_bf16 = bool(flags & {"avx512_bf16", "amx_bf16"})
    torch_fp32 = Torch(a, "fp32", a.threads)
    runs = {"PyTorch fp32": torch_fp32, "ditgen fp32": Ditgen(a, "fp32")}
    if not a.skip_bf16:
        torch_bf16 = torch_probe_bf16(a, torch_fp32)
        if torch_bf16:
            runs["PyTorch bf16"] = torch_bf16
    if fast_bf16:
        runs["ditgen bf16"] = Ditgen(a, "bf16")

    times, frames, peaks, gemms = {}, {}, [], []
    for _ in range(a.rounds):
        peaks.append(fma_peak(a.ditgen, a.threads))
        gemms.append(gemm_peak(torch, torch.float32))
        for name, r in runs.items():
            seconds, frames[name] = r.round()
            times.setdefault(name, []).append(seconds)
            print(f"round {len(times[name])}, {name}: " + ", ".join(f"{k} {v:.3f} s" for k, v in seconds.items()),
                  flush=True)  # fmt: skip
    peak, gemm = max(peaks), max(gemms)

    shape = torch_fp32.latent_shape()
    config = torch_fp32.pipe.transformer.config
    tokens = shape[2] * shape[3] * shape[4] // (config.patch_size[1] * config.patch_size[2])
    flops = step_flops(config, tokens, 512)
    print(f"\npeak of this run: {peak:.0f} GFLOP/s fp32 FMA, {gemm:.0f} PyTorch matrix product fp32", end="")
    print(f", {gemm_peak(torch, torch.bfloat16):.1f} bf16" if "PyTorch bf16" in runs else "")
    print(f"{tokens} tokens, {flops / 1e9:.0f} GFLOP a guided step as the reference counts it (512 text rows)\n")

    clip = {}
    print(f"{'':14}{'text':>9}{'a step':>9}{'decode':>9}{'clip of ' + str(a.clip_steps):>12}{'threads':>9}"
          f"{'of peak':>9}{'PSNR, dB':>11}")  # fmt: skip
    for name, list_ in times.items():
        m = {k: statistics.median(t[k] for t in list_) for k in list_[0]}
        m["clip"] = m["text"] + m.get("open", 0) + a.clip_steps * m["step"] + m["decode"]
        clip[name] = m
        share = flops / m["step"] / 1e9 / peak
        db = psnr(frames[name], frames["PyTorch fp32"]) if name != "PyTorch fp32" else float("inf")
        print(f"{name:14}{m['text']:9.3f}{m['step']:9.3f}{m['decode']:9.2f}{m['clip']:12.2f}{runs[name].threads:9}"
              f"{100 * share:8.0f}%{db:11.1f}")  # fmt: skip
    spread = {n: max(t["step"] for t in l) / min(t["step"] for t in l) for n, l in times.items()}
    print("spread of a step over rounds: " + ", ".join(f"{n} {s:.2f}x" for n, s in spread.items()))

    print("\nratios, PyTorch's seconds over ditgen's (above 1: ditgen is faster)")
    best = min((n for n in clip if n.startswith("PyTorch")), key=lambda n: clip[n]["clip"])
    for name in (n for n in clip if n.startswith("ditgen")):
        for other in dict.fromkeys(["PyTorch " + name.split()[1], best]):
            if other in clip:
                r = {k: clip[other][k] / max(1e-9, clip[name][k]) for k in ("text", "step", "decode", "clip")}
                print(f"{name} against {other}: " + ", ".join(f"{k} {v:.2f}x" for k, v in r.items()))
    share = flops / clip["PyTorch fp32"]["step"] / 1e9 / peak
    wanted = 1.2 if share > 0.85 else 1.5
    print(f"target: exact fp32 {wanted}x on a clip (PyTorch's step runs at {100 * share:.0f} % of peak)"
          + (", 2x PyTorch's best with bf16" if fast_bf16 else ""))  # fmt: skip
    for name in (n for n in runs if n.startswith("ditgen")):
        print(f"{name}: peak memory {runs[name].bytes / 2**20:.0f} MiB, {runs[name].peak:.0f} GFLOP/s of FMA measured")


def torch_probe_bf16(a, fp32):
    """The bf16 pipeline, or None where one forward shows that it is of no use here."""
    import torch

    x = torch.randn(1, *fp32.latent_shape()[1:])
    m = fp32.pipe.transformer
    small = x[:, :, :1]
    t = {}
    for dtype in (torch.float32, torch.bfloat16):
        m.to(dtype)
        text = torch.randn(1, 512, m.config.text_dim, dtype=dtype)
        with torch.no_grad():
            for _ in range(2):  # the second counts
                begin = time.perf_counter()
                m(small.to(dtype), torch.tensor([500]), text, return_dict=False)
                t[dtype] = time.perf_counter() - begin
    fp32.pipe = fp32.pipe.__class__.from_pretrained(a.model, dtype=torch.float32)
    fp32.pipe.set_progress_bar_config(disable=True)
    ratio = t[torch.bfloat16] / t[torch.float32]
    print(f"PyTorch bf16: a forward of one latent frame takes {ratio:.1f} times the fp32 one"
          + ("; left out" if ratio > 4 else ""))  # fmt: skip
    return None if ratio > 4 else Torch(a, "bf16", a.threads)


if __name__ == "__main__":
    main()
