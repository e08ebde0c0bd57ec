"""Trains the transformer; the text encoder stays as its labels left it.

Three sorts of picture, each cheaper ground for the next: windows around an actor at any moment of its motion (what
things look like), whole single frames (where they are, and before what), clips (how they move).
"""
import random

import torch

from common import Average, Clock, Muon, adamw, log, rate, set_rate
from dit import draw_sigma, pack_text
from encoder import embed
from judge import gather
from pool import Pool, Shape

ACTOR_WEIGHT = 2.   # on top of 1: actors are a tenth of the pixels and nearly all of what one looks at
EMPTY = .1          # captions left out, for guidance


def shapes(smoke):
    if smoke:
        return {s.name: s for s in (Shape("crops", 1, 128, 128, 4, 8, 4, 2, crop=64), Shape("frames", 1, 64, 64, 4, 8, 4, 2),
                                    Shape("clips", 9, 64, 64, 2, 4, 2, 2), Shape("wide", 9, 48, 80, 2, 4, 2, 2),
                                    Shape("tall", 9, 80, 48, 2, 4, 2, 2), Shape("short", 5, 64, 64, 2, 4, 2, 2),
                                    Shape("long", 13, 64, 64, 2, 4, 2, 2))}
    return {s.name: s for s in (
        Shape("crops", 1, 256, 256, 1024, 24576, 512, 16, crop=128), Shape("frames", 1, 256, 256, 320, 8192, 128, 12),
        Shape("clips", 33, 256, 256, 32, 2400, 16, 20), Shape("wide", 33, 192, 320, 32, 640, 16, 20),
        Shape("tall", 33, 320, 192, 32, 480, 16, 20), Shape("short", 17, 256, 256, 56, 400, 16, 20),
        Shape("long", 49, 256, 256, 20, 160, 8, 20))}


# until this share of the time: which shapes, how often
PLAN = [(.21, dict(crops=1)), (.34, dict(frames=1)),
        (.90, dict(clips=.70, wide=.12, tall=.08, short=.05, frames=.05)),
        (1.01, dict(clips=.64, wide=.12, tall=.08, short=.06, long=.06, frames=.04))]


class Trainer:
    def __init__(self, model, world, seed=3, smoke=False, fresh=True, compiled=True):
        self.model, self.smoke, self.device = model, smoke, model.device
        self.rng, self.dit, self.encoder = random.Random(seed), model.dit, model.encoder
        self.pools = {k: Pool(s, world, model.codec, model.spiece, self.rng) for k, s in shapes(smoke).items()}
        matrices = [p for p in self.dit.blocks.parameters() if p.ndim == 2]
        known = {id(p) for p in matrices}
        rest = [p for p in self.dit.parameters() if id(p) not in known]
        gentle = 1. if fresh else .4  # going on from trained weights without their optimizer state
        self.optimizers = [adamw(rest, 1.5e-3 * gentle), Muon(matrices, 2e-3 * gentle, weight_decay=.05)]
        self.params = list(self.dit.parameters())
        self.encoder.requires_grad_(False)
        self.average = Average(self.params)
        if compiled:
            torch._dynamo.config.recompile_limit = 32  # one graph a shape
            for block in self.dit.blocks:
                block.compile(dynamic=False)

    def pool(self, name):
        if self.pools[name].data is None:
            self.pools[name].fill()
            log(f"pool {name}: {self.pools[name].shape.capacity}")
        return self.pools[name]

    def step(self, name, factor):
        latents, coverage, ids, _ = self.pool(name).batch()
        n, device = len(latents), latents.device
        silent = torch.rand(n, device=device) < EMPTY
        ids = ids.clone()
        ids[silent] = 0
        ids[silent, 0] = 1  # </s> alone
        sigma, noise = draw_sigma(n, device), torch.randn_like(latents)
        s = sigma.view(-1, 1, 1, 1, 1)
        x = (1 - s) * latents + s * noise
        with self.model.codec.half():
            rows, mask = embed(self.encoder, ids)
            v = self.dit(x, sigma, *pack_text(rows, mask))
        weight = 1 + ACTOR_WEIGHT * coverage
        error = (v.float() - (noise - latents)).square()
        loss = (error * weight).mean() / weight.mean()
        for o in self.optimizers:
            o.zero_grad()
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.params, 1.)
        set_rate(self.optimizers, factor)
        for o in self.optimizers:
            o.step()
        self.average.update()
        return torch.stack([loss.detach(), norm])

    def run(self, seconds, judge=None, save=None, plan=PLAN, max_steps=None):
        clock, seen, counts, marks = Clock(seconds, max_steps), {}, {}, {}
        while (passed := clock.passed()) < 1:
            part = next(weights for until, weights in plan if passed < until)
            name = self.rng.choices(list(part), list(part.values()))[0]
            seen.setdefault(name, []).append(self.step(name, rate(clock.step, passed, warmup=150, flat=.55, last=.03)))
            counts[name] = counts.get(name, 0) + 1
            clock.tick()
            if clock.step % 250 == 0 or self.smoke:
                losses = {k: [round(x, 4) for x in torch.stack(v[-100:]).mean(0).tolist()] for k, v in seen.items()}
                log(f"dit {clock.step} {passed:.3f} loss, norm", losses, f"{clock.ms():.1f} ms/step")
                seen = {}
            for what, spacing, act in (("meter", .15, lambda: self.meter(name)), ("look", .2, lambda: self.look(name, judge)),
                                       ("save", .2, lambda: save and save())):
                if passed >= marks.get(what, 0) + spacing or self.smoke and clock.step == max_steps:
                    marks[what] = passed
                    self.average.swap()
                    with torch.compiler.set_stance("force_eager"):  # once a shape: not worth compiling
                        act()
                    self.average.swap()
        log("dit steps", clock.step, counts)
        self.average.swap()

    @torch.no_grad()
    def meter(self, name, n=32):
        """What a true caption is worth against another's and none, per sigma."""
        latents, _, ids, _ = (column[:n] for column in self.pools[name].data)
        n, row = len(latents), []
        noise = torch.randn(latents.shape, device=self.device, generator=torch.Generator(self.device).manual_seed(5))
        none = torch.zeros_like(ids)
        none[:, 0] = 1
        for sigma in (.97, .9, .8, .6):
            x, losses = (1 - sigma) * latents.float() + sigma * noise, []
            for which in (ids, ids.roll(1, 0), none):
                with self.model.codec.half():
                    v = self.dit(x, torch.full((n,), sigma, device=self.device), *pack_text(*embed(self.encoder, which)))
                losses.append(round((v.float() - (noise - latents.float())).square().mean().item(), 4))
            row.append((sigma, *losses))
        log(f"meter {name} (sigma, true, shuffled, none)", row)

    def look(self, name, judge):
        """The judge on a few samples, early: it moves long before the loss tells anything."""
        if judge is None or name == "crops":
            return
        from captions import sample
        from judge import table
        s, rng = self.pools[name].shape, random.Random(77)
        n = 4 if self.smoke else 48 if s.frames > 1 else 96
        clips = [sample(rng, held=True, told=True) for _ in range(n)]
        at_once = min(n, s.batch)
        video = self.model.clips([c.caption for c in clips], s.frames, s.height, s.width, steps=2 if self.smoke else 16,
                                 at_once=at_once)
        answers = gather(judge, video)
        if s.frames > 1:
            log(f"look {name}", table(answers, clips))
        else:
            right = [answers["subjects"][i].argmax().item() in (c.said["subject0"], c.said["subject1"])
                     for i, c in enumerate(clips)]
            log(f"look {name}: subject {100 * sum(right) / n:.1f}")
