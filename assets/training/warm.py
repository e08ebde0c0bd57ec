"""Compiles ahead what later stages compile, on other cores while the GPU is busy with earlier ones: the same shapes, random
weights. What is compiled lies in torch's cache on disk, where the later stage's process finds it."""
from types import SimpleNamespace

import torch

from common import half, log
from dit import CONFIG, TINY, Transformer
from encoder import LENGTH, build
from sampling import Model
from train_dit import Learner, shapes
from turbo import Distiller, clip_size

ALL = [*shapes(), "turbo", "sampling"]


def warm(names, spiece, device, share, smoke=False):
    codec = SimpleNamespace(half=lambda: half(device), device=torch.device(device))
    encoder = build(spiece.get_piece_size()).to(device)
    for name in names:
        dit = Transformer(dict(TINY if smoke else CONFIG, num_layers=2)).start().to(device)  # all blocks share a graph
        if name in shapes():
            learner, s = Learner(dit, encoder, codec.half, compiled=device == "cuda"), shapes(share, smoke)[name]
            h, w = (s.crop or s.height) // 8, (s.crop or s.width) // 8
            latents = torch.randn(s.batch, 16, (s.frames - 1) // 4 + 1, h, w, device=device)
            ids = torch.ones(s.batch, LENGTH, dtype=torch.long, device=device)
            learner.learn(latents, latents[:, :1].abs(), ids, 1.)
        else:
            model, (n, *size) = Model(spiece, encoder, dit.requires_grad_(False), codec), clip_size(share, smoke)
            if device == "cuda":
                dit.compile_blocks()
            if name == "turbo":
                Distiller(model, compiled=device == "cuda").walk([""] * n, *size, lambda i: 1.)
            else:
                model.latents([""] * (n if smoke else 16), *size, steps=2, guidance=4., seed=0)
        log("compiled", name)
