#!/usr/bin/env python3
"""Dense attention on a Hopper card, one process: this project's kernel, FlashAttention-3's forward (the wheel
fa3-fwd) where it is installed, and PyTorch's cuDNN. Random bf16, no mask; rounds take turns, medians.

    tests/bench/compare_attention.py LIBRARY [--rounds 9]

LIBRARY: libbeside_torch.so of the build (cmake --build build --target beside_torch). Wants torch.
"""

import argparse
import ctypes
import statistics
import sys

import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

SHAPES = [(32760, 12, 128), (75600, 40, 128), (2304, 5, 64), (9216, 5, 64)]  # tokens, heads, channels


def ours(path):
    lib = ctypes.CDLL(path)
    lib.beside_torch_scratch.restype = ctypes.c_size_t
    scratch = torch.empty(lib.beside_torch_scratch(), dtype=torch.uint8, device="cuda")
    why = ctypes.create_string_buffer(512)

    def run(q, k, v):
        o = torch.empty_like(q)
        at = [ctypes.c_void_p(x.data_ptr()) for x in (o, q, k, v)]
        stream = ctypes.c_void_p(torch.cuda.current_stream().cuda_stream)
        if lib.beside_torch_dense(*at, q.shape[1], q.shape[2], q.shape[3], ctypes.c_void_p(scratch.data_ptr()),
                                  stream, why, ctypes.c_size_t(len(why))):  # fmt: skip
            raise RuntimeError(why.value.decode())
        return o

    return run


def cudnn(q, k, v):
    with sdpa_kernel(SDPBackend.CUDNN_ATTENTION):
        return F.scaled_dot_product_attention(*(x.transpose(1, 2) for x in (q, k, v))).transpose(1, 2)


def fa3():
    try:
        from fa3_fwd_interface import flash_attn_func
    except ImportError as e:
        print("FlashAttention-3 is left out:", e)
        return None

    def run(q, k, v):
        o = flash_attn_func(q, k, v)
        return o[0] if isinstance(o, tuple) else o

    return run


def seconds(run, q, k, v, calls):
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    begin.record()
    for _ in range(calls):
        run(q, k, v)
    end.record()
    end.synchronize()
    return begin.elapsed_time(end) / calls / 1e3


def main():
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument("library")
    a.add_argument("--rounds", type=int, default=9)
    a = a.parse_args()
    print("torch", torch.__version__, torch.cuda.get_device_name(), flush=True)
    who = {"ditgen sm90": ours(a.library), "FlashAttention-3": fa3(), "cuDNN": cudnn}
    who = {name: run for name, run in who.items() if run}
    for tokens, heads, dim in SHAPES:
        q, k, v = (torch.randn(1, tokens, heads, dim, device="cuda", dtype=torch.bfloat16) for _ in range(3))
        flop = 4 * tokens * tokens * heads * dim
        rounds = 3 if flop > 1e14 else a.rounds
        calls = max(1, min(200, int(6e-3 / (flop / 6e14))))
        took = {name: [] for name in who}
        first = {name: run(q, k, v).float() for name, run in who.items()}
        for _ in range(rounds):  # all at the clock of the moment
            for name, run in who.items():
                took[name].append(seconds(run, q, k, v, calls))
        peer = first["cuDNN"]
        for name in who:
            s = statistics.median(took[name])
            apart = ((first[name] - peer).norm() / peer.norm()).item()
            least, most = (x(took[name]) * 1e3 for x in (min, max))
            print(f"{tokens:6} tokens {heads:3} x {dim:3}  {name:18} {s * 1e3:9.4f} ms ({least:.4f} to {most:.4f})"
                  f" {flop / s / 1e12:6.0f} TFLOP/s, {apart:.1e} from cuDNN's", flush=True)  # fmt: skip
        del q, k, v, first, peer
    return 0


if __name__ == "__main__":
    sys.exit(main())
