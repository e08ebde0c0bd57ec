"""Goldens of the scheduling room, from torch and diffusers: data/sched.safetensors.

    noise.SEED.N        torch.randn(N) with a CPU generator
    noise.calls         several calls on one generator, sizes in noise.calls.n
    noise.big.*         348,496 values by FNV-1a checksum of the bytes, and every 1009th of them
    sigma|timestep.X.F  grids of scheduler X at flow shift F for every N in STEPS, one after another
    path.X.F            latents after every step, for every N in STEPS
    final.X.F           latents at the end for N = 1..50
X: unipc, unipc036 (the grid up to diffusers 0.36), euler, dpmpp, euler-simple. The model asked is
velocity(), which tests/unit/sched/test_solvers.c repeats operation by operation in fp32.
"""

import os

import diffusers
import numpy as np
import tiny
import torch
from diffusers import (
    DPMSolverMultistepScheduler,
    FlowMatchEulerDiscreteScheduler,
    UniPCMultistepScheduler,
)
from safetensors.numpy import save_file

HERE = os.path.dirname(os.path.abspath(__file__))
STEPS = [1, 2, 3, 4, 5, 8, 20, 50]
SHIFTS = [1.0, 3.0, 5.0, 12.0]
WIDTH = 16
BIG = 348496


def randn(gen, n):
    return torch.randn(n, generator=gen).numpy()


def noise(out):
    for seed in (0, 42, 2**32 + 7, 2**64 - 1):
        for n in (1, 3, 15, 16, 17, 31, 33):
            out[f"noise.{seed}.{n}"] = randn(torch.Generator().manual_seed(seed), n)
    sizes = [3, 5, 16, 1, 17, 40, 15, 1, 1, 100, 2, 625]
    gen = torch.Generator().manual_seed(7)
    out["noise.calls"] = np.concatenate([randn(gen, n) for n in sizes])
    out["noise.calls.n"] = np.array(sizes, np.int32)
    big = randn(torch.Generator().manual_seed(42), BIG)
    h = 2166136261
    for b in big.tobytes():
        h = ((h ^ b) * 16777619) & 0xFFFFFFFF
    out["noise.big.n"] = np.array([BIG], np.int32)
    out["noise.big.hash"] = np.array([h], np.uint32).view(np.int32)
    out["noise.big.samples"] = big[::1009].copy()


def multistep(cls, shift, **more):
    return cls(
        use_flow_sigmas=True, prediction_type="flow_prediction", flow_shift=shift, solver_order=2, **more
    )


def unipc(n, shift):
    s = multistep(UniPCMultistepScheduler, shift)
    s.set_timesteps(n)
    return s


def unipc036(n, shift):
    s = multistep(UniPCMultistepScheduler, shift)
    # what 0.36 shifted; handed in, since the library has only the newer ramp
    s.set_timesteps(sigmas=np.flip(1.0 - np.linspace(1, 1 / 1000, n + 1))[:-1].copy())
    return s


def dpmpp(n, shift):
    s = multistep(DPMSolverMultistepScheduler, shift)
    s.set_timesteps(n)
    return s


def euler(n, shift):
    s = FlowMatchEulerDiscreteScheduler(shift=shift)
    s.set_timesteps(n)
    return s


def euler_simple(n, shift):
    s = FlowMatchEulerDiscreteScheduler(shift=shift)
    s.set_timesteps(sigmas=[1 - i / n for i in range(n)])
    return s


def velocity(x, t):
    f = np.float32
    after = np.roll(x, -1)
    v = f(0.8) * x - f(0.1) * after
    v = v + f(0.3) * (f(t) * f(0.001))
    return v + (f(0.05) * x) * after


def run(s, x):
    s.set_begin_index(0)
    path = []
    for t in s.timesteps:
        v = torch.from_numpy(velocity(x, float(t)))[None]
        x = s.step(v, t, torch.from_numpy(x)[None], return_dict=False)[0][0].numpy()
        path.append(x)
    return path


def main():
    out = {}
    noise(out)
    start = tiny.fill("sched.latents", (WIDTH,))
    for name, make in (
        ("unipc", unipc),
        ("unipc036", unipc036),
        ("euler", euler),
        ("dpmpp", dpmpp),
        ("euler-simple", euler_simple),
    ):
        for shift in SHIFTS:
            made = {n: make(n, shift) for n in range(1, 51)}
            key = f"{name}.{shift:g}"
            out["sigma." + key] = np.concatenate([made[n].sigmas.numpy() for n in STEPS]).astype(np.float32)
            out["timestep." + key] = np.concatenate(
                [made[n].timesteps.numpy().astype(np.float32) for n in STEPS]
            )
            paths = {n: run(made[n], start) for n in range(1, 51)}
            out["path." + key] = np.stack([x for n in STEPS for x in paths[n]])
            out["final." + key] = np.stack([paths[n][-1] for n in range(1, 51)])
    out["steps"] = np.array(STEPS, np.int32)
    path = os.path.join(HERE, "data", "sched.safetensors")
    save_file(out, path, metadata={"torch": torch.__version__, "diffusers": diffusers.__version__})
    print(path, os.path.getsize(path), "bytes")


if __name__ == "__main__":
    main()
