"""Latents to train on, kept on the GPU: drawn, encoded once, used some dozens of times with new noise, replaced."""
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F

from captions import sample
from common import Feed
from encoder import tokens


@dataclass
class Shape:
    name: str
    frames: int
    height: int
    width: int
    batch: int          # samples a step
    capacity: int       # a multiple of fresh, or rounded to one
    fresh: int          # how many are drawn at a time
    every: int          # steps between two replacements
    crop: int = 0       # a window of so many pixels around an actor, at a random time


def over_latents(actors):
    """Coverage per pixel [B, 1, 4k + 1, H, W] -> per latent [B, 1, k + 1, H / 8, W / 8]."""
    first, rest = actors[:, :, :1], actors[:, :, 1:]
    parts = [F.avg_pool3d(first, (1, 8, 8))] + ([F.avg_pool3d(rest, (4, 8, 8))] if rest.shape[2] else [])
    return torch.cat(parts, 2)


def cast(spiece, n, windows, rng):
    """-> clips, their times where windows are drawn, ids of their captions."""
    clips = [sample(rng) for _ in range(n)]
    at = [rng.random() for _ in clips] if windows else None
    return clips, at, tokens(spiece, [c.caption for c in clips]).numpy()


ENCODED = 36_000_000  # pixels at a time


class Pool:
    """Starts with a few and grows to its capacity while it is used: training begins at once. `drawers` and `seed` are the
    feed's."""

    def __init__(self, shape, world, codec, spiece, seed, drawers=None):
        self.shape, self.world, self.codec, self.steps = shape, world, codec, 0
        self.feed = Feed(partial(cast, spiece, shape.fresh, shape.crop > 0), seed, drawers)
        self.parts = max(1, round(shape.capacity / shape.fresh))
        self.data, self.filled, self.drawn = None, 0, 0
        for _ in range(min(self.parts, -(-shape.batch // shape.fresh))):
            self.add()

    def draw(self):
        s = self.shape
        clips, at, ids = self.feed.batch()
        n = max(1, min(len(clips), ENCODED // (s.frames * (s.crop * s.crop or s.height * s.width))))
        parts = []
        for i in range(0, len(clips), n):
            video, actors = self.world.render(clips[i:i + n], s.frames, s.height, s.width, crop=s.crop,
                                              at=at[i:i + n] if at else None)
            parts.append((self.codec.encode(video).to(torch.bfloat16), over_latents(actors).to(torch.bfloat16)))
        latents, coverage = (torch.cat(column) for column in zip(*parts))
        return latents, coverage, torch.from_numpy(ids).to(latents.device)

    def add(self):
        """A new part in an empty place, or in that of the oldest."""
        new = self.draw()
        if self.data is None:
            self.data = [torch.empty(self.parts * len(c), *c.shape[1:], dtype=c.dtype, device=c.device) for c in new]
        at = self.drawn % self.parts * self.shape.fresh
        for column, part in zip(self.data, new):
            column[at:at + len(part)] = part
        self.drawn += 1
        self.filled = max(self.filled, at + self.shape.fresh)

    def batch(self):
        """-> latents f32, coverage f32, ids."""
        s = self.shape
        self.steps += 1
        if self.steps % (s.every if self.drawn >= self.parts else max(1, s.every // 2)) == 0:
            self.add()
        rows = torch.randint(self.filled, (s.batch,), device=self.data[0].device)
        latents, coverage, ids = (column[rows] for column in self.data)
        return latents.float(), coverage.float(), ids
