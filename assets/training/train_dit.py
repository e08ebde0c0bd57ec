"""Trains the transformer; the text encoder stays as its labels left it.

Three sorts of picture, each cheaper ground for the next: windows around an actor at any moment of its motion (what
things look like), whole single frames (where they are, and before what), clips (how they move).
"""
import random
from contextlib import contextmanager
from dataclasses import replace

import torch

import team
from captions import sample
from common import Average, Clock, Muon, adamw, log, rate, set_rate
from dit import draw_sigma, pack_text
from encoder import embed
from judge import table, watch
from pool import Pool, Shape

ACTOR_WEIGHT = 2.   # on top of 1: actors are a tenth of the pixels and nearly all of what one looks at
EMPTY = .1          # captions left out, for guidance
EARLY = .4, .2      # share of steps at sigmas above .8, where captions are read; in the second half, where details are late


def shapes(share=1., smoke=False):
    """share: of the batch of a lone GPU, and of what it keeps."""
    if smoke:
        table = [Shape("crops", 1, 128, 128, 4, 8, 4, 2, crop=64), Shape("frames", 1, 64, 64, 4, 8, 4, 2),
                 Shape("clips", 9, 64, 64, 4, 4, 2, 2), Shape("wide", 9, 48, 80, 4, 4, 2, 2),
                 Shape("tall", 9, 80, 48, 4, 4, 2, 2), Shape("short", 5, 64, 64, 4, 4, 2, 2),
                 Shape("long", 13, 64, 64, 4, 4, 2, 2)]
    else:
        table = [Shape("crops", 1, 256, 256, 1024, 24576, 512, 16, crop=128), Shape("frames", 1, 256, 256, 320, 8192, 128, 12),
                 Shape("clips", 33, 256, 256, 32, 2400, 16, 20), Shape("wide", 33, 192, 320, 32, 640, 16, 20),
                 Shape("tall", 33, 320, 192, 32, 480, 16, 20), Shape("short", 17, 256, 256, 56, 400, 16, 20),
                 Shape("long", 49, 256, 256, 20, 160, 8, 20)]
    return {s.name: replace(s, batch=2 * max(1, round(s.batch * share / 2)), capacity=s.capacity * share) for s in table}


# until this share of the time: which shapes, how often
PLAN = [(.21, dict(crops=1)), (.34, dict(frames=1)),
        (.90, dict(clips=.70, wide=.12, tall=.08, short=.05, frames=.05)),
        (1.01, dict(clips=.64, wide=.12, tall=.08, short=.06, long=.06, frames=.04))]


class Learner:
    """The transformer with its optimizers and its average."""

    def __init__(self, dit, encoder, half, compiled=True):
        self.dit, self.encoder, self.half = dit, encoder.requires_grad_(False), half
        matrices = {k: p for k, p in dit.blocks.named_parameters() if p.ndim == 2}
        known = {id(p) for p in matrices.values()}
        self.params, self.step = list(dit.parameters()), 0
        self.adamw = adamw([p for p in self.params if id(p) not in known], 1.5e-3)
        self.muon = Muon(matrices.values(), 2e-3, weight_decay=.05)
        team.same(self.params)
        self.average = Average(self.params)
        if compiled:
            dit.compile_blocks()

    def learn(self, latents, coverage, ids, factor, early=EARLY[0]):
        """-> loss and gradient norm, on the device."""
        n, device = len(latents), latents.device
        silent = torch.rand(n, device=device) < EMPTY
        ids = ids.clone()
        ids[silent] = 0
        ids[silent, 0] = 1  # </s> alone
        sigma, noise = draw_sigma(n, device, early), torch.randn_like(latents)
        s = sigma.view(-1, 1, 1, 1, 1)
        x = (1 - s) * latents + s * noise
        with self.half():
            rows, mask = embed(self.encoder, ids)
            v = self.dit(x, sigma, *pack_text(rows, mask))
        weight = 1 + ACTOR_WEIGHT * coverage
        error = (v.float() - (noise - latents)).square()
        loss = (error * weight).mean() / weight.mean()
        for o in (self.adamw, self.muon):
            o.zero_grad()
        loss.backward()
        team.mean_gradients(self.params)
        norm = torch.nn.utils.clip_grad_norm_(self.params, 1.)
        set_rate((self.adamw, self.muon), factor)
        self.adamw.step()
        self.muon.step()
        self.average.update()
        self.step += 1
        return torch.stack([loss.detach(), norm])

    def best(self):
        """The averaged weights, by name."""
        return dict(zip((name for name, _ in self.dit.named_parameters()), self.average.values))

    def state(self):
        return dict(weights=self.dit.state_dict(), average=self.best(), averaged=self.average.steps, step=self.step,
                    adamw=self.adamw.state_dict()["state"], muon=[m.to(torch.bfloat16) for _, m in self.muon.stacks])

    def load(self, state):
        self.dit.load_state_dict(state["weights"])
        self.adamw.load_state_dict({**self.adamw.state_dict(), "state": state["adamw"]})
        with torch.no_grad():
            for (_, mine), kept in zip(self.muon.stacks, state["muon"]):
                mine.copy_(kept)
            for mine, kept in zip(self.average.values, state["average"].values()):
                mine.copy_(kept)
        self.average.steps, self.step = state["averaged"], state["step"]


class Trainer:
    """share: of a lone GPU's batch. gentle: the weights are trained already, and go on at a lower rate."""

    def __init__(self, model, world, seed=3, share=1., gentle=False, smoke=False, compiled=True, drawers=None):
        self.model, self.world, self.smoke, self.device, self.drawers = model, world, smoke, model.device, drawers
        self.learner = Learner(model.dit, model.encoder, model.codec.half, compiled)
        self.shapes, self.pools, self.seed = shapes(share, smoke), {}, seed
        self.strength, self.warmup = (.4, 50) if gentle else (1., 150)

    def pool(self, name):
        if name not in self.pools:
            seed = ((self.seed * 1000 + self.learner.step) * 100 + team.RANK) * 10 + list(self.shapes).index(name)
            self.pools[name] = Pool(self.shapes[name], self.world, self.model.codec, self.model.spiece, seed, self.drawers)
            log(f"pool {name}: {len(self.pools[name].data[0])}")
        return self.pools[name]

    def run(self, seconds, judge=None, save=None, begin=0., max_steps=None, plan=PLAN):
        """begin: where in the plan. save(learner, share of the plan passed) is rank 0's to call."""
        learner, seen, counts = self.learner, {}, {}
        torch.manual_seed(self.seed + 1000 * team.RANK + learner.step)
        choice = random.Random(self.seed + learner.step)  # of shapes: the same on every rank
        clock, marks = Clock(seconds, max_steps, begin), dict(save=begin, meter=begin, look=begin)
        while (passed := clock.passed()) < 1:
            part = next(weights for until, weights in plan if passed < until)
            name = choice.choices(list(part), list(part.values()))[0]
            factor = self.strength * rate(learner.step, passed, self.warmup, flat=.55, last=.03)
            seen.setdefault(name, []).append(learner.learn(*self.pool(name).batch(), factor, EARLY[passed > .5]))
            counts[name] = counts.get(name, 0) + 1
            clock.tick()
            if clock.step % 250 == 0 or self.smoke and clock.step % 10 == 0:
                losses = {k: [round(x, 4) for x in torch.stack(v[-100:]).mean(0).tolist()] for k, v in seen.items()}
                log(f"dit {learner.step} {passed:.3f} loss, norm", losses, f"{clock.ms():.1f} ms/step")
                seen = {}
            for what, spacing, act in (("save", .1, lambda: self.keep(save, passed)), ("meter", .15, lambda: self.meter(name)),
                                       ("look", .2, lambda: self.look(name, judge))):
                if passed >= marks[what] + spacing:
                    marks[what] = passed
                    act()
        log("dit steps", learner.step, counts)
        self.keep(save, 1.)

    def keep(self, save, passed):
        team.same(self.learner.params)  # equal by construction; a rounding apart would stay for ever
        if save and team.RANK == 0:
            save(self.learner, passed)

    @torch.no_grad()
    def meter(self, name, n=32):
        """What a true caption is worth against another's and none, per sigma."""
        latents, _, ids = (column[:n] for column in self.pools[name].data)
        n, row = len(latents), []
        noise = torch.randn(latents.shape, device=self.device, generator=torch.Generator(self.device).manual_seed(5))
        none = torch.zeros_like(ids)
        none[:, 0] = 1
        with self.averaged():
            for sigma in (.97, .9, .8, .6):
                x, losses = (1 - sigma) * latents.float() + sigma * noise, []
                for which in (ids, ids.roll(1, 0), none):
                    with self.model.codec.half():
                        text = pack_text(*embed(self.model.encoder, which))
                        v = self.model.dit(x, torch.full((n,), sigma, device=self.device), *text)
                    losses.append(round((v.float() - (noise - latents.float())).square().mean().item(), 4))
                row.append((sigma, *losses))
        log(f"meter {name} (sigma, true, shuffled, none)", row)

    def look(self, name, judge):
        """The judge on a few samples, early: it moves long before the loss tells anything."""
        if judge is None or name == "crops":
            return
        s, rng = self.shapes[name], random.Random(77)
        n = 4 if self.smoke else 64 if s.frames > 1 else 128
        clips = [sample(rng, held=True, told=True) for _ in range(n)]
        with self.averaged():
            answers = watch(judge, self.model, [c.caption for c in clips], n // 4, frames=s.frames, height=s.height,
                            width=s.width, steps=2 if self.smoke else 16)
        if s.frames > 1:
            log(f"look {name}", table(answers, clips))
        else:
            right = [answers["subjects"][i].argmax().item() in (c.said["subject0"], c.said["subject1"])
                     for i, c in enumerate(clips)]
            log(f"look {name}: subject {100 * sum(right) / n:.1f}")

    @contextmanager
    def averaged(self):
        """The average takes the weights' place, uncompiled: once a shape is not worth compiling."""
        self.learner.average.swap()
        with torch.compiler.set_stance("force_eager"):
            yield
        self.learner.average.swap()
