"""Compiles ahead what later stages compile, on other cores while the GPU is busy with earlier ones: the same shapes, random
weights. What is compiled lies in torch's cache on disk, where the later stage's process finds it. The first of these
processes also measures which attention is the faster one in training, torch's own choice or cuDNN's: attention.txt."""
import time
from types import SimpleNamespace

import torch

import sizes
from common import half, log, put
from dit import CONFIG, KERNEL, TINY, Transformer
from encoder import LENGTH, build
from sampling import Model
from train_dit import Learner, shapes, tokens
from turbo import Distiller, walks

MEASURED = "clips512"


def names(smoke=False):
    """What there is to compile, the dearest and the most needed first."""
    judged = sizes.TINY if smoke else sizes.JUDGED
    return [*reversed(shapes(1., smoke)), *(f"turbo {size}" for size in walks(1., smoke)), *(f"sampling {size}" for size in judged)]


def a_transformer(smoke, device):
    return Transformer(dict(TINY if smoke else CONFIG, num_layers=2)).start().to(device)  # all blocks share a graph


def a_batch(s, device):
    h, w = (s.crop or s.height) // 8, (s.crop or s.width) // 8
    latents = torch.randn(s.batch, 16, (s.frames - 1) // 4 + 1, h, w, device=device)
    return latents, latents[:, :1].abs().clamp(max=1), torch.ones(s.batch, LENGTH, dtype=torch.long, device=device), 1.


def choose(path, encoder, codec, device, share):
    """Compiled steps of both: cuDNN's if it is faster by more than a twentieth and both find the same gradients."""
    took, losses, shape = {}, {}, shapes(share)[MEASURED]
    try:
        learners = {}
        for name in ("torch", "cudnn"):
            KERNEL["name"] = name
            torch.manual_seed(5)
            torch._dynamo.reset()
            learners[name] = Learner(a_transformer(False, device), encoder, codec.half)
            batch = a_batch(shape, device)
            torch.manual_seed(6)
            losses[name] = [learners[name].learn(*batch)[1].item() for _ in range(3)]
            took[name] = []
            for _ in range(12):
                start = time.time()
                learners[name].learn(*batch)[0].item()
                took[name].append(time.time() - start)
        apart = max(abs(a - b) / abs(a) for a, b in zip(losses["torch"], losses["cudnn"]))
        best = {name: min(times) for name, times in took.items()}
        choice = "cudnn" if best["cudnn"] < .95 * best["torch"] and apart < .05 else "torch"
        log("attention in training:", {k: f"{1e3 * v:.1f} ms" for k, v in best.items()},
            f"two layers of {MEASURED}; gradient norms {apart:.4f} apart: {choice}")
    except Exception as error:  # a kernel of cuDNN's that this machine does not have
        choice = "torch"
        log("attention in training: torch, since cuDNN's failed:", str(error).splitlines()[0] if str(error) else type(error))
    torch._dynamo.reset()
    put(path, lambda aside: aside.write_text(choice))


def chosen(path, wait=0.):
    """-> the attention to use, once it is measured; torch's own where nothing was."""
    until = time.time() + wait
    while not path.exists() and time.time() < until:
        time.sleep(.5)
    return path.read_text() if path.exists() else "torch"


def warm(which, spiece, device, share, path, smoke=False):
    """path: attention.txt. which: some of names(), after "choose" for the process that measures."""
    codec = SimpleNamespace(half=lambda: half(device), device=torch.device(device))
    encoder = build(spiece.get_piece_size()).to(device)
    if which[0] == "choose":
        which = which[1:]
        if device == "cuda" and not path.exists():
            choose(path, encoder, codec, device, share)
        elif not path.exists():
            put(path, lambda aside: aside.write_text("torch"))
    KERNEL["name"] = chosen(path, 200)
    for name in which:
        try:
            compile_one(name, spiece, encoder, codec, device, share, smoke)
        except Exception:
            if KERNEL["name"] == "torch":
                raise
            log(f"{name}: cuDNN's attention fails; torch's is used everywhere")
            put(path, lambda aside: aside.write_text("torch"))
            KERNEL["name"] = "torch"
            compile_one(name, spiece, encoder, codec, device, share, smoke)
        log("compiled", name)


def compile_one(name, spiece, encoder, codec, device, share, smoke):
    dit, (what, _, size) = a_transformer(smoke, device), name.partition(" ")
    if not size:
        Learner(dit, encoder, codec.half, compiled=device == "cuda").learn(*a_batch(shapes(share, smoke)[what], device))
        return
    model = Model(spiece, encoder, dit.requires_grad_(False), codec)
    if device == "cuda":
        dit.compile_blocks()
    if what == "turbo":
        size, (n, _) = next((s, row) for s, row in walks(share, smoke).items() if str(s) == size)
        Distiller(model, compiled=device == "cuda").walk([""] * n, size, lambda i: 1.)
    else:
        size, row = next((s, row) for s, row in (sizes.TINY if smoke else sizes.JUDGED).items() if str(s) == size)
        model.latents([""] * row[1], **size.how(), steps=2, guidance=4., seed=0)
