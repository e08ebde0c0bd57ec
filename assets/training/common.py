"""What every stage shares: seeds, log, clock, learning-rate shape, the Muon optimizer, an average of weights."""
import os
import random
import time
from collections import deque
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import torch

import team

torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
torch.backends.cudnn.benchmark = True
HERE = Path(__file__).parent


def log(*words):
    """Rank 0 speaks for its team; train.py puts the time in front."""
    if team.RANK == 0:
        print(*words, flush=True)


def put(path, write):
    """A file is there whole or not at all: written aside, then renamed."""
    aside = path.with_name("part." + path.name)
    write(aside)
    os.replace(aside, path)


def seed_all(seed):
    torch.manual_seed(seed)
    return random.Random(seed)


def half(device):
    """bf16 where it is fast."""
    kind = torch.device(device).type
    return torch.autocast(kind, torch.bfloat16, enabled=kind == "cuda")


def drawers(count):
    """Processes that draw batches ahead, forked from one that imports what they need from now on."""
    if not count:
        return None
    context = get_context("forkserver")
    context.set_forkserver_preload(["encoder", "judge", "pool"])
    pool = ProcessPoolExecutor(count, context)
    pool.submit(len, "")
    return pool


class Feed:
    """Batches drawn ahead in other processes: captions are Python, and a GPU would wait for them. make(rng) -> batch
    must be picklable and leave the GPU alone. The same seed gives the same batches for any number of processes."""

    def __init__(self, make, seed, pool=None, ahead=12):
        self.make, self.seed, self.count, self.pool, self.ahead = make, seed, 0, pool, deque()
        for _ in range(ahead if pool else 0):
            self.order()

    def next_rng(self):
        self.count += 1
        return random.Random(self.seed * 1000003 + self.count - 1)

    def order(self):
        self.ahead.append(self.pool.submit(self.make, self.next_rng()))

    def batch(self):
        if self.pool is None:
            return self.make(self.next_rng())
        self.order()
        return self.ahead.popleft().result()


class Clock:
    """A stage lasts for so many seconds, or, to try the code, for so many steps. begin: the share of it that an earlier
    run has done. Every rank goes by rank 0's clock."""

    def __init__(self, seconds, max_steps=None, begin=0.):
        self.start, self.seconds, self.max_steps = time.time(), max(seconds, 1e-3), max_steps
        self.step, self.begin = 0, begin

    def passed(self):
        """0..1; 1 ends the stage."""
        share = (time.time() - self.start) / self.seconds if self.max_steps is None else self.step / self.max_steps
        return team.agree(min(1., self.begin + (1 - self.begin) * share))

    def tick(self):
        self.step += 1

    def ms(self):
        return (time.time() - self.start) / max(1, self.step) * 1e3


def rate(step, passed, warmup=200, flat=.5, last=.02):
    """Share of the full learning rate: a short warm-up, flat, then straight down to `last`."""
    return min(1., (step + 1) / warmup) * (1. if passed < flat else max(last, (1 - passed) / (1 - flat)))


def set_rate(optimizers, factor):
    for o in optimizers:
        for group in o.param_groups:
            group["lr"] = group["base"] * factor


def adamw(params, lr, weight_decay=0.):
    params = list(params)
    o = torch.optim.AdamW(params, lr=lr, betas=(.9, .99), weight_decay=weight_decay, fused=params[0].is_cuda)
    for group in o.param_groups:
        group["base"] = lr
    return o


class Muon:
    """Momentum, orthogonalised by five Newton-Schulz steps (Jordan et al. 2024), scaled to AdamW's size of update
    (Moonlight, arXiv 2502.16982). Matrices of one shape go through together; a convolution counts as [out, rest]."""

    def __init__(self, params, lr, weight_decay=0., momentum=.95):
        shapes = {}
        for p in params:
            shapes.setdefault((p.shape[0], p[0].numel()), []).append(p)
        self.stacks = [(ps, torch.zeros(len(ps), *shape, device=ps[0].device)) for shape, ps in shapes.items()]
        self.weight_decay, self.momentum = weight_decay, momentum
        self.param_groups = [dict(lr=lr, base=lr)]

    def zero_grad(self, set_to_none=True):
        for params, _ in self.stacks:
            for p in params:
                p.grad = None

    @torch.no_grad()
    def step(self):
        lr = self.param_groups[0]["lr"]
        for params, average in self.stacks:
            grad = torch.stack([p.grad.reshape(p.shape[0], -1) for p in params])
            average.lerp_(grad, 1 - self.momentum)
            update = orthogonal(grad.lerp(average, self.momentum)).float() * (.2 * max(average.shape[1:]) ** .5)
            if self.weight_decay:
                torch._foreach_mul_(params, 1 - lr * self.weight_decay)
            for p, u in zip(params, update):
                p.add_(u.view(p.shape), alpha=-lr)


def orthogonal(m):
    m = m.bfloat16() if m.is_cuda else m
    flip = m.shape[1] > m.shape[2]
    if flip:
        m = m.mT
    m = m / (m.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(5):
        a = m @ m.mT
        m = 3.4445 * m + (-4.7750 * a + 2.0315 * a @ a) @ m
    return m.mT if flip else m


class Average:
    """Exponential moving average of parameters: what is exported."""

    def __init__(self, params, decay=.999):
        self.params, self.decay, self.steps = list(params), decay, 0
        self.values = [p.detach().clone() for p in self.params]

    @torch.no_grad()
    def update(self):
        self.steps += 1
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        torch._foreach_lerp_(self.values, [p.detach() for p in self.params], 1 - decay)

    @torch.no_grad()
    def swap(self):
        """Exchange the parameters and their average; call twice to be back."""
        for p, v in zip(self.params, self.values):
            keep = p.detach().clone()
            p.copy_(v)
            v.copy_(keep)
