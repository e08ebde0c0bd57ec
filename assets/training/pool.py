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


class Pool:
    """`drawers` and `seed` are the feed's."""

    def __init__(self, shape, world, codec, spiece, seed, drawers=None):
        self.shape, self.world, self.codec, self.steps = shape, world, codec, 0
        self.feed = Feed(partial(cast, spiece, shape.fresh, shape.crop > 0), seed, drawers)
        self.parts = max(1, round(shape.capacity / shape.fresh))
        self.data = [torch.cat(column) for column in zip(*(self.draw() for _ in range(self.parts)))]

    def draw(self):
        s = self.shape
        clips, at, ids = self.feed.batch()
        video, actors = self.world.render(clips, s.frames, s.height, s.width, crop=s.crop, at=at)
        return (self.codec.encode(video).to(torch.bfloat16), over_latents(actors).to(torch.bfloat16),
                torch.from_numpy(ids).to(video.device))

    def batch(self):
        """-> latents f32, coverage f32, ids."""
        s = self.shape
        self.steps += 1
        if self.steps % s.every == 0:
            at = self.steps // s.every % self.parts * s.fresh
            for column, new in zip(self.data, self.draw()):
                column[at:at + s.fresh] = new
        rows = torch.randint(len(self.data[0]), (s.batch,), device=self.data[0].device)
        latents, coverage, ids = (column[rows] for column in self.data)
        return latents.float(), coverage.float(), ids
