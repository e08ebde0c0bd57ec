"""Latents to train on, kept on the GPU: drawn, encoded once, used some dozens of times with new noise, replaced."""
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from captions import sample
from encoder import labels, tokens


@dataclass
class Shape:
    name: str
    frames: int
    height: int
    width: int
    batch: int          # samples a step
    capacity: int
    fresh: int          # how many are replaced at a time
    every: int          # steps between two replacements
    crop: int = 0       # a window of so many pixels around an actor, at a random time


def over_latents(actors):
    """Coverage per pixel [B, 1, 4k + 1, H, W] -> per latent [B, 1, k + 1, H / 8, W / 8]."""
    first, rest = actors[:, :, :1], actors[:, :, 1:]
    parts = [F.avg_pool3d(first, (1, 8, 8))] + ([F.avg_pool3d(rest, (4, 8, 8))] if rest.shape[2] else [])
    return torch.cat(parts, 2)


class Pool:
    def __init__(self, shape, world, codec, spiece, rng):
        self.shape, self.world, self.codec, self.spiece, self.rng = shape, world, codec, spiece, rng
        self.data, self.next, self.steps = None, 0, 0

    def draw(self, n):
        s = self.shape
        clips = [sample(self.rng) for _ in range(n)]
        at = [self.rng.random() for _ in clips] if s.crop else None
        video, actors = self.world.render(clips, s.frames, s.height, s.width, crop=s.crop, at=at)
        return (self.codec.encode(video).to(torch.bfloat16), over_latents(actors).to(torch.bfloat16),
                tokens(self.spiece, [c.caption for c in clips]).to(video.device), labels(clips).to(video.device))

    def fill(self):
        s, have, parts = self.shape, 0, []
        at_once = s.fresh
        while have < s.capacity:
            parts.append(self.draw(min(at_once, s.capacity - have)))
            have += len(parts[-1][0])
        self.data = [torch.cat(column) for column in zip(*parts)]
        return self

    def batch(self):
        """-> latents f32, coverage f32, ids, labels."""
        s = self.shape
        self.steps += 1
        if self.steps % s.every == 0:
            n = min(s.fresh, s.capacity)
            at = self.next % (s.capacity - n + 1)
            for column, new in zip(self.data, self.draw(n)):
                column[at:at + n] = new
            self.next = at + n if at + n < s.capacity else 0
        rows = torch.randint(s.capacity, (s.batch,), device=self.data[0].device)
        latents, coverage, ids, wanted = (column[rows] for column in self.data)
        return latents.float(), coverage.float(), ids, wanted
