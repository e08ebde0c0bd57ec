"""Trains the transformer; the text encoder stays as its labels left it.

Each sort of picture is cheaper ground for the next: windows around an actor at any moment of its motion (what things look
like), whole single frames (where they are, and before what), clips of 256 x 256 (how they move), single frames and short
clips at large sizes (how many there are, where places are farther apart than ever before), then clips of all sizes. A step
takes about as long at any of them.
"""
import random
from contextlib import contextmanager
from dataclasses import replace

import torch

import team
from captions import sample
from common import Average, Clock, Muon, adamw, log, rate, set_rate
import sizes
from dit import draw_sigma, pack_text
from encoder import embed
from judge import table, watch
from pool import Pool, Shape

ACTOR_WEIGHT = 2.   # on top of 1: actors are a tenth of the pixels and nearly all of what one looks at
RIM_WEIGHT = 1.5    # and where an actor covers half of what a latent stands for: the rim of what moves
EMPTY = .1          # captions left out, for guidance
EARLY = .35, .15      # share of steps at sigmas above .8, where captions are read; later, where details are
DETAILS = .80       # from here on in the plan
GENTLE = .50        # where in the plan a trained transformer goes on: sizes it has not seen


def shapes(share=1., smoke=False):
    """share: of the batch of a lone GPU, and of what it keeps."""
    if smoke:
        table = [Shape("crops", 1, 128, 128, 4, 8, 4, 2, crop=64), Shape("frames", 1, 64, 64, 4, 8, 4, 2),
                 Shape("clips", 9, 64, 64, 4, 8, 2, 2), Shape("wide", 9, 48, 80, 4, 4, 2, 2),
                 Shape("tall", 9, 80, 48, 4, 4, 2, 2), Shape("long", 13, 48, 80, 4, 4, 2, 2)]
    else:
        table = [Shape("crops", 1, 256, 256, 1024, 24576, 512, 16, crop=128), Shape("frames", 1, 256, 256, 320, 8192, 128, 12),
                 Shape("clips", 33, 256, 256, 32, 2400, 16, 20), Shape("tall", 33, 320, 192, 32, 480, 16, 20),
                 Shape("small", 17, 192, 192, 96, 960, 32, 20),
                 # large ones: frames, then clips
                 Shape("frames512", 1, 512, 512, 80, 3072, 96, 10), Shape("frames640", 1, 384, 640, 80, 2048, 96, 10),
                 Shape("short512", 17, 512, 512, 14, 320, 8, 16), Shape("clips384", 33, 384, 384, 14, 800, 8, 16),
                 Shape("long320", 81, 192, 320, 14, 400, 8, 16), Shape("clips512", 33, 512, 512, 6, 400, 4, 16),
                 Shape("wide640", 49, 384, 640, 4, 240, 2, 12), Shape("tall384", 33, 640, 384, 6, 160, 4, 16),
                 Shape("long512", 49, 512, 512, 4, 120, 2, 12)]
    return {s.name: replace(s, batch=2 * max(1, round(s.batch * share / 2)), capacity=s.capacity * share) for s in table}


# until this share of the time: which shapes, how often
PLAN = [(.15, dict(crops=1)), (.24, dict(frames=1)), (GENTLE, dict(clips=.86, tall=.08, frames=.06)),
        (.56, dict(frames512=.26, frames640=.20, short512=.28, clips=.20, tall=.06)),
        (.72, dict(clips=.20, clips384=.22, short512=.08, long320=.18, clips512=.12, wide640=.06, frames512=.05, frames640=.03,
                   tall=.03, small=.03)),
        (1.01, dict(clips=.20, clips384=.12, clips512=.23, wide640=.16, long320=.18, long512=.04, tall384=.02, frames512=.01,
                    frames640=.01, tall=.01, small=.01, frames=.01))]
SMOKE = [(.2, dict(crops=1)), (.3, dict(frames=1)), (GENTLE, dict(clips=1)), (1.01, dict(clips=.5, wide=.2, tall=.1, long=.2))]


def later(begin, smoke=False):
    """Names of the shapes that the plan has from there on."""
    return {name for until, weights in (SMOKE if smoke else PLAN) if until > begin for name in weights}


def tokens(shape):
    return sizes.tokens(shape.frames, shape.crop or shape.height, shape.crop or shape.width)


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

    def learn(self, latents, coverage, ids, factor, early=EARLY[0], shift=3.):
        """-> loss and gradient norm, on the device."""
        n, device = len(latents), latents.device
        silent = torch.rand(n, device=device) < EMPTY
        ids = ids.clone()
        ids[silent] = 0
        ids[silent, 0] = 1  # </s> alone
        sigma, noise = draw_sigma(n, device, early, shift), torch.randn_like(latents)
        s = sigma.view(-1, 1, 1, 1, 1)
        x = (1 - s) * latents + s * noise
        with self.half():
            rows, mask = embed(self.encoder, ids)
            v = self.dit(x, sigma, *pack_text(rows, mask))
        weight = 1 + ACTOR_WEIGHT * coverage + RIM_WEIGHT * 4 * coverage * (1 - coverage)
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
        self.shapes, self.pools, self.seed, self.looks = shapes(share, smoke), {}, seed, -2
        self.strength, self.warmup = .5 if gentle else 1., 50 if gentle else 150

    def pool(self, name):
        if name not in self.pools:
            seed = ((self.seed * 1000 + self.learner.step) * 100 + team.RANK) * 10 + list(self.shapes).index(name)
            self.pools[name] = Pool(self.shapes[name], self.world, self.model.codec, self.model.spiece, seed, self.drawers)
            log(f"pool {name}: {self.pools[name].filled} of {len(self.pools[name].data[0])}")
        return self.pools[name]

    def run(self, seconds, judge=None, save=None, begin=0., max_steps=None):
        """begin: where in the plan. save(learner, share of the plan passed) is rank 0's to call."""
        learner, seen, counts, first = self.learner, {}, {}, self.learner.step
        torch.manual_seed(self.seed + 1000 * team.RANK + learner.step)
        choice = random.Random(self.seed + learner.step)  # of shapes: the same on every rank
        clock, marks = Clock(seconds, max_steps, begin), dict(save=begin, meter=begin, look=begin)
        while (passed := clock.passed()) < 1:
            part = next(weights for until, weights in (SMOKE if self.smoke else PLAN) if passed < until)
            name = choice.choices(list(part), list(part.values()))[0]
            factor = self.strength * rate(learner.step - first, passed, self.warmup, flat=.70, last=.03)
            seen.setdefault(name, []).append(learner.learn(*self.pool(name).batch(), factor, EARLY[passed > DETAILS],
                                                           sizes.shift(tokens(self.shapes[name]))))
            counts[name] = counts.get(name, 0) + 1
            clock.tick()
            if clock.step % 250 == 0 or self.smoke and clock.step % 10 == 0:
                losses = {k: [round(x, 4) for x in torch.stack(v[-100:]).mean(0).tolist()] for k, v in seen.items()}
                log(f"dit {learner.step} {passed:.3f} loss, norm", losses, f"{clock.ms():.1f} ms/step")
                seen = {}
            for what, spacing, act in (("save", .05, lambda: self.keep(save, passed)), ("meter", .17, lambda: self.meter(name)),
                                       ("look", .16, lambda: self.look(judge))):
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
        n = sizes.at_once(tokens(self.shapes[name]), n, 80000)
        latents, _, ids = (column[:min(n, self.pools[name].filled)] for column in self.pools[name].data)
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

    def look(self, judge):
        """The judge on a few samples, early: it moves long before the loss tells anything. Sizes take turns."""
        if judge is None:
            return
        judged = list(sizes.TINY if self.smoke else sizes.JUDGED)
        size, rng = judged[self.looks % len(judged)], random.Random(77)
        self.looks -= 1  # from the largest on
        n = 4 if self.smoke else 32
        clips = [sample(rng, held=True, told=True) for _ in range(n)]
        with self.averaged():
            answers = watch(judge, self.model, [c.caption for c in clips], 2 if self.smoke else 4, steps=2 if self.smoke else 12,
                            **size.how())
        log(f"look {size}", table(answers, clips))

    @contextmanager
    def averaged(self):
        """The average takes the weights' place, uncompiled: once a shape is not worth compiling."""
        self.learner.average.swap()
        with torch.compiler.set_stance("force_eager"):
            yield
        self.learner.average.swap()
