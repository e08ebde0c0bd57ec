#!/usr/bin/env python3
"""The reference's models on PyTorch's GPU, random weights in bf16: seconds of what `ditgen bench --device cuda`
times, for one table with it. Run both one after the other on one machine.

    tests/bench/compare_gpu.py [--only NAME,...] [--rounds 5] [--compile] [--smoke]

Names: embedded (guided step, 256x256x33), wan13b (guided step, 832x480x81), decode (VAE, 832x480x81), text
(umt5-xxl, 512 tokens). A guided step is two forwards, as the reference does it. Attention is torch's
choice, cuDNN's, and FlashAttention-3's where the wheel fa3-fwd is installed; the fastest counts; --compile
also times torch.compile with the last of them (minutes). Medians,
fastest and slowest, and the peak of memory. --smoke walks it at tiny size on a CPU. Wants
torch, diffusers and transformers.
"""

import argparse
import contextlib
import json
import os
import statistics
import sys
import time

import torch
from diffusers import AutoencoderKLWan, WanTransformer3DModel
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import UMT5Config, UMT5EncoderModel

HERE = os.path.dirname(os.path.abspath(__file__))
EMBEDDED = os.path.join(HERE, "..", "..", "assets", "emoji", "transformer", "config.json")
WAN13B = dict(num_attention_heads=12, attention_head_dim=128, ffn_dim=8960, num_layers=30, text_dim=4096)
XXL = dict(d_model=4096, d_ff=10240, d_kv=64, num_layers=24, num_heads=64, vocab_size=256384,
           feed_forward_proj="gated-gelu")  # fmt: skip


def arguments():
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument("--only", default="embedded,wan13b,decode,text")
    a.add_argument("--rounds", type=int, default=5)
    a.add_argument("--compile", action="store_true")
    a.add_argument("--smoke", action="store_true")
    return a.parse_args()


class Clock:
    def __init__(self, device, rounds):
        self.device, self.rounds = device, rounds

    def wait(self):
        if self.device == "cuda":
            torch.cuda.synchronize()

    def time(self, name, run):
        run()
        self.wait()
        if self.device == "cuda":
            torch.cuda.reset_peak_memory_stats()
        seconds = []
        for _ in range(self.rounds):
            start = time.perf_counter()
            run()
            self.wait()
            seconds.append(time.perf_counter() - start)
        peak = torch.cuda.max_memory_allocated() / 2**30 if self.device == "cuda" else 0
        print(f"{name:44} {statistics.median(seconds):9.4f} s ({min(seconds):.4f} to {max(seconds):.4f})"
              f"  {peak:6.2f} GiB", flush=True)  # fmt: skip


def fresh(make, device):
    """A model whose weights are made where they stay."""
    torch.set_default_dtype(torch.bfloat16)
    with torch.device(device), torch.no_grad():
        model = make().eval()
        for p in model.parameters():
            p.normal_(std=0.02)
    torch.set_default_dtype(torch.float32)
    return model.requires_grad_(False)


def flash3():
    """scaled_dot_product_attention by FlashAttention-3's forward, or None."""
    try:
        from fa3_fwd_interface import flash_attn_func
    except ImportError as e:
        print("FlashAttention-3 is left out:", e)
        return None
    plain = torch.nn.functional.scaled_dot_product_attention

    def attend(query, key, value, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None, **more):
        if attn_mask is not None or query.dtype != torch.bfloat16:
            return plain(query, key, value, attn_mask, dropout_p, is_causal, scale=scale, **more)
        o = flash_attn_func(*(x.transpose(1, 2) for x in (query, key, value)), softmax_scale=scale, causal=is_causal)
        return (o[0] if isinstance(o, tuple) else o).transpose(1, 2)

    return attend


@contextlib.contextmanager
def attention(how):
    """how: None (torch's choice), an SDPBackend, or a function in its place."""
    if how is None:
        yield
    elif isinstance(how, SDPBackend):
        with sdpa_kernel(how):
            yield
    else:
        plain = torch.nn.functional.scaled_dot_product_attention
        torch.nn.functional.scaled_dot_product_attention = how
        try:
            yield
        finally:
            torch.nn.functional.scaled_dot_product_attention = plain


def step(clock, name, config, latent, rows, compiled):
    model = fresh(lambda: WanTransformer3DModel(**config), clock.device)
    x = torch.randn(1, 16, *latent, device=clock.device, dtype=torch.bfloat16)
    text = torch.randn(1, rows, config["text_dim"], device=clock.device, dtype=torch.bfloat16)
    t = torch.tensor([500], device=clock.device)

    def run():
        with torch.no_grad():
            a = model(x, t, text, return_dict=False)[0]
            b = model(x, t, text, return_dict=False)[0]
            return b + 4.0 * (a - b)

    ways = [("torch's choice", None)]
    if clock.device == "cuda":
        ways.append(("cuDNN", SDPBackend.CUDNN_ATTENTION))
        if third := flash3():
            ways.append(("FlashAttention-3", third))
    for words, how in ways:
        with attention(how):
            clock.time(f"{name}, guided step, {words}", run)
    if compiled:
        model.compile(mode="max-autotune-no-cudagraphs" if clock.device == "cuda" else "default")
        with attention(ways[-1][1]):
            clock.time(f"{name}, guided step, {ways[-1][0]}, compiled", run)


def main():
    a = arguments()
    device = "cpu" if a.smoke else "cuda"
    only, clock = a.only.split(","), Clock(device, a.rounds)
    print(f"torch {torch.__version__}", torch.cuda.get_device_name() if device == "cuda" else "CPU", flush=True)
    with open(EMBEDDED) as f:
        embedded = {k: v for k, v in json.load(f).items() if not k.startswith("_")}
    if "embedded" in only:
        step(clock, "embedded, 256x256x33", embedded, (2, 8, 8) if a.smoke else (9, 32, 32), 512, a.compile)
    if "wan13b" in only:
        config = dict(WAN13B, num_layers=1, num_attention_heads=1, ffn_dim=64) if a.smoke else WAN13B
        step(clock, "1.3B, 832x480x81", config, (2, 8, 8) if a.smoke else (21, 60, 104), 512, a.compile)
    if "decode" in only:
        vae = fresh(lambda: AutoencoderKLWan(base_dim=24) if a.smoke else AutoencoderKLWan(), device)
        z = torch.randn(1, 16, *((2, 4, 4) if a.smoke else (21, 60, 104)), device=device, dtype=torch.bfloat16)
        with torch.no_grad():
            clock.time("VAE decode, 832x480x81", lambda: vae.decode(z, return_dict=False)[0])
    if "text" in only:
        config = dict(XXL, num_layers=1, d_model=64, d_ff=64, num_heads=1, vocab_size=64) if a.smoke else XXL
        text = fresh(lambda: UMT5EncoderModel(UMT5Config(**config)), device)
        ids = torch.randint(2, 60, (1, 512), device=device)
        with torch.no_grad():
            clock.time("umt5-xxl, 512 tokens", lambda: text(ids, attention_mask=torch.ones_like(ids)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
