"""How clean the rim of what moves is: the mean error inside a band of four pixels round moving subjects.

A clip that the model makes has no true picture beside it. So a render goes through the autoencoder, alone and with noise
added to its latents up to some sigma and taken away again by the model: where things are is settled by then, what they
look like at the rim is not. Errors are in steps of 8 bits:

    autoencoder     render against what the autoencoder makes of it
    model SIGMA     what the autoencoder makes of the render against what it makes of the latents that the model cleaned

    python3 rim.py MODEL SPRITES.npz [WIDTHxHEIGHTxFRAMES [CLIPS]]
"""
import random
import sys

import torch

from captions import sample
from sizes import Size
from vae import around

FAST = ["left", "right", "up", "down", "rollright", "rollleft", "zigzag", "cw", "ccw", "bounce", "orbit", "jump", "shake"]
SIGMAS = .6, .3
STEPS = 12


@torch.no_grad()
def cleaned(model, latents, captions, sigma, noise, guidance=4.):
    """From sigma to nothing in even steps, midpoint rule."""
    text, empty, x = model.text(captions), model.text([""] * len(captions)), (1 - sigma) * latents + sigma * noise
    for i in range(STEPS // 2):
        a, b = sigma * (1 - 2 * i / STEPS), sigma * (1 - 2 * (i + 1) / STEPS)
        half = x + (b - a) / 2 * model.guided(x, a, text, empty, guidance)
        x = x + (b - a) * model.guided(half, (a + b) / 2, text, empty, guidance)
    return x


def measure(model, world, size, n=12):
    rng, sums = random.Random(51), {}

    def add(name, difference, band):
        total = sums.setdefault(name, [0., 0.])
        total[0] += (difference.abs().mean(1, True) * band).sum().item() * 127.5
        total[1] += band.sum().item()

    generator = torch.Generator(model.device).manual_seed(9)
    for _ in range(n):
        clip = sample(rng, held=True, told=True)
        while any(a.motion not in FAST for a in clip.actors):
            clip = sample(rng, held=True, told=True)
        video, actors = world.render([clip], size.frames, size.height, size.width)
        band, latents = around(actors)[1], model.codec.encode(video)
        own = model.codec.decode(latents)
        add("autoencoder", own - video, band)
        noise = torch.randn(latents.shape, device=latents.device, generator=generator)
        for sigma in SIGMAS:
            add(f"model {sigma}", model.codec.decode(cleaned(model, latents, [clip.caption], sigma, noise)) - own, band)
    return {name: round(total / weight, 2) for name, (total, weight) in sums.items()}


def main(model, sprites, size="256x256x33", n="4"):
    import export
    from world import World
    device = "cuda" if torch.cuda.is_available() else "cpu"
    print(size, measure(export.read(model, device), World(sprites, device), Size(*map(int, size.split("x"))), int(n)))


if __name__ == "__main__":
    main(*sys.argv[1:])
