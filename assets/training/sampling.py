"""Captions to clips with the reference's sampler: UniPC, the flow shift of the clip's size, guidance by a second, unprompted
forward."""
import torch

from dit import pack_text
from encoder import embed, tokens
from sizes import shift
from sizes import tokens as tokens_of

SCHEDULER = dict(prediction_type="flow_prediction", use_flow_sigmas=True)


def scheduler(steps, device, shift):
    from diffusers import UniPCMultistepScheduler
    s = UniPCMultistepScheduler(**SCHEDULER, flow_shift=shift)
    s.set_timesteps(steps, device=device)
    return s


class Model:
    """What a prompt goes through, in one place."""

    def __init__(self, spiece, encoder, dit, codec):
        self.spiece, self.encoder, self.dit, self.codec = spiece, encoder, dit, codec
        self.device = codec.device

    def text(self, captions):
        with self.codec.half():
            return pack_text(*embed(self.encoder, tokens(self.spiece, captions).to(self.device)))

    def velocity(self, x, sigma, text, dit=None):
        with self.codec.half():
            v = (dit or self.dit)(x, torch.full((len(x),), float(sigma), device=x.device), *text)
        return v.float()

    def guided(self, x, sigma, text, empty, guidance, dit=None):
        v = self.velocity(x, sigma, text, dit)
        if guidance == 1:
            return v
        return torch.lerp(self.velocity(x, sigma, empty, dit), v, guidance)

    @torch.no_grad()
    def latents(self, captions, frames, height, width, steps, guidance, seed, dit=None):
        g = torch.Generator(self.device).manual_seed(seed)
        x = torch.randn(len(captions), 16, (frames - 1) // 4 + 1, height // 8, width // 8, device=self.device, generator=g)
        s = scheduler(steps, self.device, shift(tokens_of(frames, height, width)))
        text, empty = self.text(captions), self.text([""] * len(captions))
        for t in s.timesteps:  # whole numbers: the reference hands the model rounded times
            x = s.step(self.guided(x, t / 1000, text, empty, guidance, dit), t, x, return_dict=False)[0]
        return x

    def clips_of(self, captions, i, at_once=16, frames=33, height=256, width=256, steps=30, guidance=4., seed=7, dit=None,
                 first=0):
        """-> video [n, 3, T, H, W] of captions i to i + at_once on the device. A last batch is filled up: one shape, one
        compiled graph. first: what the captions' first is counted as, for its noise."""
        part = captions[i:i + at_once]
        full = part + [""] * (at_once - len(part))
        return self.codec.decode(self.latents(full, frames, height, width, steps, guidance, seed + first + i, dit))[:len(part)]

    def clips(self, captions, at_once=16, **how):
        """-> yields videos, at_once clips at a time."""
        for i in range(0, len(captions), at_once):
            yield self.clips_of(captions, i, at_once, **how)
