"""What attention sees while a clip is made: q, k and v (rotated, as attention gets them) of some layers at some steps.

    python3 qkv.py OUT.safetensors [--model FOLDER] [--prompt TEXT] [--size 512x512x33] [--steps 30] [--at 0,15,29]
                   [--layers 0,3,7] [--branch prompt|negative] [--seed 0]

Tensors are named step15.layer3.q, [heads, tokens, channels], bf16; tokens in raster order (time, rows, columns). The
file's metadata says what it was made from, the grid of tokens and each step's sigma. For tests and benchmarks of sparse
attention; not kept with the code (a step of a layer of 512 x 512 x 33 is 18 MB).
"""
import argparse
from pathlib import Path

import torch
from safetensors.torch import save_file

import dit
import export
from sampling import scheduler
from sizes import Size

HERE = Path(__file__).parent


def numbers(text):
    return [int(n) for n in text.split(",")]


def size_of(text):
    return Size(*map(int, text.split("x")))


class Tap:
    """Passes on what attention over tokens is asked in one forward, layer by layer."""

    def __init__(self, see):
        self.see, self.run, self.layer = see, dit.over_keys, 0

    def __enter__(self):
        dit.over_keys = self

    def __exit__(self, *_):
        dit.over_keys = self.run

    def __call__(self, q, k, v):
        self.see(self.layer, q, k, v)
        self.layer += 1
        return self.run(q, k, v)


@torch.no_grad()
def walk(model, prompt, size, steps, at, branch, see, seed=0, guidance=4.):
    """Makes the latents of a clip up to the last of the steps `at`; see(step, layer, q, k, v), each [1, N, L, D]."""
    s = scheduler(steps, model.device, size.shift)
    x = torch.randn(1, 16, (size.frames - 1) // 4 + 1, size.height // 8, size.width // 8,
                    generator=torch.Generator().manual_seed(seed)).to(model.device)
    texts = dict(prompt=model.text([prompt]), negative=model.text([""]))
    for i, t in enumerate(s.timesteps[:max(at) + 1]):
        velocities = {}
        for name, text in texts.items():
            if i in at and name == branch:
                with Tap(lambda layer, *qkv: see(i, layer, *qkv)):
                    velocities[name] = model.velocity(x, t / 1000, text)
            else:
                velocities[name] = model.velocity(x, t / 1000, text)
        x = s.step(torch.lerp(velocities["negative"], velocities["prompt"], guidance), t, x, return_dict=False)[0]
        print(f"step {i + 1} of {max(at) + 1}, sigma {s.sigmas[i]:.3f}", flush=True)
    return [float(s.sigmas[i]) for i in at]


def arguments(text):
    p = argparse.ArgumentParser(description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("out")
    p.add_argument("--model", default=HERE.parent / "emoji")
    p.add_argument("--prompt", default="a shark swims to the left under water")
    p.add_argument("--steps", type=int, default=30)
    p.add_argument("--at", type=numbers, default=[0, 15, 29], help="which steps, the first one is 0")
    p.add_argument("--branch", choices=["prompt", "negative"], default="prompt")
    p.add_argument("--seed", type=int, default=0)
    return p


def checked(p, a, model, layers):
    if max(a.at) >= a.steps or min(a.at) < 0:
        p.error(f"--at {a.at} lies outside the {a.steps} steps")
    if max(layers) >= len(model.dit.blocks) or min(layers) < 0:
        p.error(f"--layers {layers}: the model has layers 0 to {len(model.dit.blocks) - 1}")


def main():
    p = arguments(__doc__)
    p.add_argument("--size", type=size_of, default=Size(512, 512, 33))
    p.add_argument("--layers", type=numbers, default=[0, 3, 7])
    a, tensors = p.parse_args(), {}
    model = export.read(a.model, "cuda" if torch.cuda.is_available() else "cpu")
    checked(p, a, model, a.layers)

    def see(step, layer, *qkv):
        if layer in a.layers:
            for name, tensor in zip("qkv", qkv):
                tensors[f"step{step}.layer{layer}.{name}"] = tensor[0].to(torch.bfloat16).cpu().contiguous()

    sigmas = walk(model, a.prompt, a.size, a.steps, a.at, a.branch, see, a.seed)
    grid = f"{(a.size.frames - 1) // 4 + 1}x{a.size.height // 16}x{a.size.width // 16}"
    save_file(tensors, a.out, metadata=dict(prompt=a.prompt, size=str(a.size), grid=grid, branch=a.branch, seed=str(a.seed),
                                            steps=str(a.steps), sigmas=",".join(f"{s:.4f}" for s in sigmas)))
    print(f"{a.out}: {len(tensors)} tensors, tokens {grid}")


if __name__ == "__main__":
    main()
