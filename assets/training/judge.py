"""The judge: three small classifiers trained on rendered clips alone, and the tables they give for a model's clips.

Stills tells subjects from single frames (their answers are averaged over a clip), Counts how many there are, Moves the
motion of each actor and the backdrop from 17 small frames. None ever sees a generated or even an encoded clip while it
learns. Whatever the size of a clip, Stills and Counts see its shorter side as 256 pixels, Moves all of it as 96 x 96.
"""
import math
import random
from functools import partial

import torch
import torch.nn as nn
import torch.nn.functional as F

import sizes
import team
from captions import ABSENT_SUBJECT, sample
from common import HERE, Clock, Feed, adamw, half, log, rate, set_rate
from world import BACKDROPS, MOTIONS, Actor, Clip

FRAMES, SIDE = 17, 96  # what Moves looks at
SHORTER = 256          # what Stills and Counts look at
ASPECTS = [(1, 1), (1, 1), (1, 1), (5, 3), (3, 5)]  # width, height of what they learn from: sizes.JUDGED's, and tall
NETS = "stills", "counts", "moves"
MOST = 4               # subjects; that many or more


def conv(inside, outside, stride):
    return nn.Sequential(nn.Conv2d(inside, outside, 3, stride, 1, bias=False), nn.BatchNorm2d(outside), nn.ReLU())


class Stills(nn.Module):
    """[B, 3, 256, 256] -> subjects [B, S]: a distribution; two subjects get half each. Every place of an 8 x 8 map votes:
    so two subjects are as easy as one (by a few learnt looks at the map instead, half of the second ones are missed)."""

    def __init__(self):
        super().__init__()
        widths, layers = [24, 48, 96, 160, 192], [nn.Conv2d(3, 24, 5, 2, 2)]
        for a, b in zip(widths, widths[1:]):
            layers += [nn.BatchNorm2d(a), nn.ReLU(), conv(a, b, 2), nn.Conv2d(b, b, 3, 1, 1)]
        self.body = nn.Sequential(*layers, nn.BatchNorm2d(192), nn.ReLU())
        self.votes = nn.Conv2d(192, ABSENT_SUBJECT, 1)

    def forward(self, x):
        return self.votes(self.body(x)).flatten(2).float().logsumexp(2)


class Counts(nn.Module):
    """[B, 3, H, W] -> 0, 1, 2, 3, MOST or more subjects, repeated ones too. What each place of a map finds is added up: it
    sees some 290 pixels around, a huge subject whole."""

    def __init__(self):
        super().__init__()
        widths, layers = [24, 48, 96, 128, 128], [nn.Conv2d(3, 24, 5, 2, 2), nn.BatchNorm2d(24), nn.ReLU()]
        for a, b in zip(widths, widths[1:]):
            layers += [conv(a, b, 2), conv(b, b, 1)]
        self.body = nn.Sequential(*layers, conv(128, 128, 1), conv(128, 128, 1), nn.Conv2d(128, 64, 1), nn.Softplus())
        self.mixed, self.last = nn.Linear(64, 64), nn.Linear(64, MOST + 1)

    def forward(self, x):
        found = self.body(x).flatten(2).float().sum(2) / 8
        return self.last(F.relu(self.mixed(found)))


class Layer(nn.Module):
    """Within each frame, then across frames: [b * t, C, H, W] -> the same, H and W halved, t divided by stride. Both are
    convolutions in two dimensions of one layout, channels last: a GPU does them many times faster than one in three."""

    def __init__(self, inside, outside, kernel, stride):
        super().__init__()
        self.within = nn.Sequential(nn.Conv2d(inside, outside, kernel, 2, kernel // 2, bias=False),
                                    nn.BatchNorm2d(outside), nn.ReLU())
        self.across = nn.Sequential(nn.Conv2d(outside, outside, (3, 1), (stride, 1), (1, 0), bias=False),
                                    nn.BatchNorm2d(outside), nn.ReLU())

    def forward(self, x, b):
        x = self.within(x)
        n, c, h, w = x.shape
        x = self.across(x.permute(0, 2, 3, 1).reshape(b, n // b, h * w, c).permute(0, 3, 1, 2))
        return x.permute(0, 2, 3, 1).reshape(-1, h, w, c).permute(0, 3, 1, 2)


class Moves(nn.Module):
    """[B, 3, 17, 96, 96] -> motion of the left (or only) actor, of the right one, backdrop."""

    def __init__(self):
        super().__init__()
        self.body = nn.ModuleList([Layer(5, 32, 5, 1), Layer(32, 64, 3, 1), Layer(64, 96, 3, 2), Layer(96, 128, 3, 2)])
        self.last = nn.Sequential(nn.Conv2d(128, 32, 1), nn.ReLU())
        self.mixed = nn.Linear(5 * 6 * 6 * 32, 192)
        self.motion0, self.motion1 = nn.Linear(192, len(MOTIONS)), nn.Linear(192, len(MOTIONS) + 1)
        self.scene = nn.Linear(192, len(BACKDROPS))

    def forward(self, x):
        place = torch.linspace(-1, 1, SIDE, device=x.device)
        b, _, t, h, w = x.shape
        where = torch.stack([place.view(1, w).expand(h, w), place.view(h, 1).expand(h, w)])
        x = torch.cat([x.transpose(1, 2).flatten(0, 1), where.expand(b * t, 2, h, w)], 1)
        x = x.contiguous(memory_format=torch.channels_last)
        for layer in self.body:
            x = layer(x, b)
        h = F.relu(self.mixed(self.last(x).permute(0, 2, 3, 1).reshape(b, -1)))
        return self.motion0(h), self.motion1(h), self.scene(h)


def small(video):
    """[B, 3, 33, H, W] -> what Moves looks at. A wide clip is squeezed: motions keep their names."""
    if video.shape[2] != FRAMES:
        video = video[:, :, torch.linspace(0, video.shape[2] - 1, FRAMES).round().long()]
    b, c, t, h, w = video.shape
    x = F.interpolate(video.transpose(1, 2).reshape(b * t, c, h, w), (SIDE, SIDE), mode="area")
    return x.view(b, t, c, SIDE, SIDE).transpose(1, 2)


def seen(frames):
    """[B, 3, 1, H, W] or [B, 3, H, W] -> what Stills and Counts look at."""
    x = frames[:, :, 0] if frames.ndim == 5 else frames
    h, w = x.shape[2:]
    if min(h, w) != SHORTER:
        size = [round(side * SHORTER / min(h, w)) for side in (h, w)]
        x = F.interpolate(x, size, mode="area") if min(h, w) > SHORTER else F.interpolate(x, size, mode="bilinear")
    return x.contiguous(memory_format=torch.channels_last)


def spoil(x):
    """What a classifier must not mind: blur, brightness, noise."""
    chance = random.random()
    if chance < .3:
        x = F.avg_pool3d(x, (1, 3, 3), 1, (0, 1, 1), count_include_pad=False)
    elif chance < .5:  # soft, as a picture that was small once
        less = random.uniform(.4, .8)
        small = F.interpolate(x, scale_factor=(1, less, less), mode="trilinear")
        x = F.interpolate(small, x.shape[2:], mode="trilinear")
    gain, shift = (torch.rand(2, len(x), 1, 1, 1, 1, device=x.device) - .5).mul(.16).unbind(0)
    return x * (1 + gain) + shift + .04 * torch.rand(len(x), 1, 1, 1, 1, device=x.device) * torch.randn_like(x)


def crowd(clip, rng, wide, tall):
    """The clip with any number of subjects, many of them the same, none on another: what counting is learned from."""
    if rng.random() < .4:
        return clip
    actors, sort = [], rng.choice(clip.actors).subject
    for _ in range(rng.choice([0, 1, 2, 2, 3, 3, 4, 5, 6])):
        size = rng.choice([rng.uniform(.1, .25), rng.uniform(.2, .5), rng.uniform(.4, .74)])
        for _ in range(20):
            x, y = rng.uniform(.08, .92), rng.uniform(.08, .92)
            if all(((x - a.x) * wide) ** 2 + ((y - a.y) * tall) ** 2 > (.42 * (size + a.size)) ** 2 for a in actors):
                subject = sort if rng.random() < .6 else rng.randrange(ABSENT_SUBJECT)
                actors.append(Actor(subject, "sway" if rng.random() < .3 else "still", size, x, y))
                break
            size *= .9
    return Clip(clip.backdrop, actors, clip.chance)


def cast(stills, moves, rng):
    """-> clips for single frames and their times, for counting and theirs, their aspect, clips for motion, whether to draw
    them large. Two subjects at once are the hard case: half of the single frames."""
    aspect = rng.choice(ASPECTS)
    wide, tall = (side / min(aspect) for side in aspect)
    still = [sample(rng, two=rng.random() < .5) for _ in range(stills)]
    many = [crowd(sample(rng, two=rng.random() < .5), rng, wide, tall) for _ in range(stills)]
    times = [[rng.random() for _ in range(stills)] for _ in range(2)]
    return still, times[0], many, times[1], aspect, [sample(rng) for _ in range(moves)], rng.random() < .25


def packed(net, state):
    """As a file has it: weights in eight bits with a scale for each output (NAME.scale), all else in fp16."""
    out = {}
    for k, v in state.items():
        if v.ndim > 1:
            scale = v.float().flatten(1).abs().amax(1).clamp(min=1e-12) / 127
            out[f"{net}.{k}.scale"] = scale.cpu()
            v = (v.float() / scale.view(-1, *[1] * (v.ndim - 1))).round().to(torch.int8)
        out[f"{net}.{k}"] = (v.half() if v.is_floating_point() else v).contiguous().cpu()
    return out


def widened(net, state):
    """What `packed` made of the net's weights, as load_state_dict takes it; files all in fp16 too."""
    mine = {k[len(net) + 1:]: v for k, v in state.items() if k.startswith(net + ".")}
    scales = {k: mine.pop(k + ".scale") for k, v in list(mine.items()) if v.dtype == torch.int8}
    return {k: v.float() * scales[k].view(-1, *[1] * (v.ndim - 1)) if k in scales else v for k, v in mine.items()}


class Judge:
    def __init__(self, device):
        self.device, self.counting = torch.device(device), True
        self.stills, self.counts, self.moves = Stills().to(device), Counts().to(device), Moves().to(device)

    def save(self, path):
        from safetensors.torch import save_file
        save_file({k: v for net in NETS for k, v in packed(net, getattr(self, net).state_dict()).items()}, path)

    def load(self, path):
        from safetensors.torch import load_file
        state = load_file(path)
        for net in NETS:
            mine = widened(net, state)
            if mine or net != "counts":  # the judge of version 2 did not count: it must be trained further
                getattr(self, net).load_state_dict(mine)
            else:
                self.counting = False
            getattr(self, net).eval()
        return self

    def train(self, world, seed, seconds, max_steps=None, smoke=False, pool=None, lr=2e-3):
        """All nets, from wherever they are; Stills and Counts take turns."""
        nets, self.counting = nn.ModuleList([self.stills, self.counts, self.moves]).train(), True
        optimizer, clock = adamw(nets.parameters(), lr, .01), Clock(seconds, max_steps)
        feed = Feed(partial(cast, *((4, 2) if smoke else (128, 48))), seed, pool)
        shown = dict(stills=0., counts=0.)
        while (passed := clock.passed()) < 1:
            set_rate([optimizer], rate(clock.step, passed, flat=.4, last=.01))
            still, times, many, their, aspect, moving, fine = feed.batch()
            losses = [self.loss_of_moves(world, moving, aspect, fine)]
            if clock.step % 2 == 0:
                losses.append(self.loss_of_stills(world, still, times, aspect))
                shown["stills"] = losses[1].detach()
            else:
                losses.append(self.loss_of_counts(world, many, their, aspect))
                shown["counts"] = losses[1].detach()
            optimizer.zero_grad()
            sum(losses).backward()
            nn.utils.clip_grad_norm_(nets.parameters(), 1.)
            optimizer.step()
            clock.tick()
            if clock.step % 250 == 0 or smoke:
                log(f"judge {clock.step} subject {float(shown['stills']):.3f} number {float(shown['counts']):.3f} "
                    f"moves {losses[0].item():.3f} {clock.ms():.1f} ms/step")
        nets.eval()

    def frames(self, world, clips, times, aspect):
        height, width = (round(SHORTER * side / min(aspect)) for side in reversed(aspect))
        return seen(spoil(world.render(clips, 1, height, width, at=times)[0]))

    def loss_of_stills(self, world, clips, times, aspect):
        with half(self.device):
            answer = self.stills(self.frames(world, clips, times, aspect))
        wanted = torch.zeros(len(clips), ABSENT_SUBJECT)
        for row, clip in zip(wanted, clips):
            for actor in clip.actors:
                row[actor.subject] += 1 / len(clip.actors)
        return F.cross_entropy(answer.float(), wanted.to(self.device))

    def loss_of_counts(self, world, clips, times, aspect):
        with half(self.device):
            answer = self.counts(self.frames(world, clips, times, aspect))
        wanted = torch.tensor([min(len(clip.actors), MOST) for clip in clips], device=self.device)
        return F.cross_entropy(answer.float(), wanted)

    def loss_of_moves(self, world, clips, aspect, fine):
        """fine: as the judge will see a clip, large, then shrunk."""
        side = 2 * SIDE if fine or aspect[0] != aspect[1] else SIDE
        video, _ = world.render(clips, FRAMES, *(round(side * s / max(aspect) / 2) * 2 for s in reversed(aspect)))
        with half(self.device):
            answers = self.moves(spoil(small(video)))
        return sum(F.cross_entropy(o.float(), truth) for o, truth in zip(answers, self.truth(clips).T))

    def truth(self, clips):
        """-> [B, 3]: motion of the first, of the second (the last label: none), backdrop."""
        return torch.tensor([[MOTIONS.index(c.actors[0].motion),
                              MOTIONS.index(c.actors[1].motion) if len(c.actors) > 1 else len(MOTIONS),
                              BACKDROPS.index(c.backdrop)] for c in clips], device=self.device)

    @torch.no_grad()
    def see(self, video):
        """-> dict of answers on the CPU: subjects [B, S] (share), number, motion0, motion1, scene [B], and plain
        measures."""
        if not self.counting:
            raise SystemExit("judge: these weights do not count subjects; train them further (--again judge)")
        with half(self.device):
            b, t = len(video), video.shape[2]
            some = seen(video[:, :, torch.linspace(0, t - 1, min(t, 9)).round().long()].transpose(1, 2).flatten(0, 1))
            subjects, number = (net(some).float().softmax(-1).view(b, len(some) // b, -1).mean(1)
                                for net in (self.stills, self.counts))
            answers = dict(subjects=subjects, number=number.argmax(1))
            if t > 1:
                motion0, motion1, scene = self.moves(small(video))
                answers.update(motion0=motion0.argmax(1), motion1=motion1[:, :-1].argmax(1), scene=scene.argmax(1))
        answers["bright"] = video.amax((1, 2, 3, 4))
        answers["change"] = video.diff(dim=2).abs().amax((1, 2)).flatten(1).topk(64).values.mean(1) if t > 1 else subjects[:, 0]
        rough = video - F.avg_pool3d(video, (1, 3, 3), 1, (0, 1, 1), count_include_pad=False)
        answers["rough"] = rough.abs().flatten(1).median(1).values  # half of the pixels are smooth in any clean clip
        return {k: v.cpu() for k, v in answers.items()}


def table(answers, clips):
    """Shares of right answers over what the captions told."""
    one, both, motion, scene, number = [], [], [], [], []
    faults = dict(black=0, frozen=0, noisy=0)
    for i, clip in enumerate(clips):
        said, ranked = clip.said, answers["subjects"][i].topk(2).indices.tolist()
        wanted = {said["subject0"], said["subject1"]} - {ABSENT_SUBJECT}
        number.append(answers["number"][i].item() == len(clip.actors))
        if said["subject1"] == ABSENT_SUBJECT:
            one.append(ranked[0] == said["subject0"])
        else:
            both.append(set(ranked[:len(wanted)]) == wanted)
        for j in range(2):
            if said[f"motion{j}"] < len(MOTIONS):
                motion.append(answers[f"motion{j}"][i].item() == said[f"motion{j}"])
        if said["scene"] < len(BACKDROPS):
            scene.append(answers["scene"][i].item() == said["scene"])
        moving = any(said[f"motion{j}"] < len(MOTIONS) and MOTIONS[said[f"motion{j}"]] != "still" for j in range(2))
        faults["black"] += answers["bright"][i].item() < -.7
        faults["frozen"] += moving and answers["change"][i].item() < .05
        faults["noisy"] += answers["rough"][i].item() > .02
    share = lambda right: round(100 * sum(right) / max(1, len(right)), 1)
    return dict(scene=share(scene), motion=share(motion), subject=share(one), both=share(both), number=share(number), **faults)


def watch(judge, model, captions, at_once=16, first=0, **how):
    """Answers for the model's clips of all captions, at_once at a time, dealt out to the team. first: of which caption the
    first one is, by which noise is drawn."""
    parts = team.gather([judge.see(model.clips_of(captions, i, at_once, first=first, **how))
                         for i in team.turns(range(0, len(captions), at_once))])
    return joined(parts)


def joined(parts):
    return {k: torch.cat([p[k] for p in parts]) for k in parts[0]}


def examine(judge, world, size, n=128, codec=None):
    """The judge's own worth: held-out renders, as they are or after the autoencoder."""
    rng, clips, videos = random.Random(99), [], []
    at_once = sizes.at_once(size.pixels, 16, 36_000_000)
    for i in range(0, n, at_once):
        part = [sample(rng, held=True, told=True) for _ in range(min(n - i, at_once))]
        video, _ = world.render(part, size.frames, size.height, size.width)
        clips += part
        videos.append(judge.see(codec.decode(codec.encode(video)) if codec else video))
    return table(joined(videos), clips)


def held_out_clips(n=512):
    rng = random.Random(2024)
    return [sample(rng, held=True, told=True) for _ in range(n)]


def free_prompts():
    """-> prompts, subjects: written by hand, in words and order the grammar does not make."""
    from captions import SUBJECTS
    names = [s["name"] for s in SUBJECTS]
    lines = [line.split(" | ") for line in (HERE / "freeform.txt").read_text().splitlines() if line[:1] != "#"]
    return [prompt for prompt, _ in lines], [names.index(name) for _, name in lines]


class Exam:
    """The whole table of a model at one size, part by part: what is there counts, should time run out. `how` goes to
    Model.clips_of (steps, guidance, dit)."""

    def __init__(self, judge, model, size, n, at_once, free, most_free=100, **how):
        self.judge, self.model, self.how, self.at_once = judge, model, dict(how, **size.how()), at_once
        self.clips, (self.prompts, self.subjects) = held_out_clips(n), free_prompts()
        self.prompts, self.subjects = self.prompts[:most_free if free else 0], self.subjects[:most_free]
        self.answers, self.top = [], []

    def go(self, share):
        """On to so large a share of the captions."""
        batches = lambda items: max(1, math.ceil(share * len(items) / self.at_once))
        done = sum(len(a["number"]) for a in self.answers)
        upto = min(len(self.clips), self.at_once * batches(self.clips))
        if upto > done:
            self.answers.append(watch(self.judge, self.model, [c.caption for c in self.clips[done:upto]], self.at_once,
                                      done, **self.how))
        done = len(self.top)
        upto = min(len(self.prompts), self.at_once * batches(self.prompts))
        if upto > done:
            self.top += watch(self.judge, self.model, self.prompts[done:upto], self.at_once, done,
                              **self.how)["subjects"].argmax(1).tolist()
        return self.row()

    def row(self):
        n = sum(len(a["number"]) for a in self.answers)
        row = dict(clips=n, **table(joined(self.answers), self.clips[:n]))
        if self.top:
            row["free"] = round(100 * sum(a == b for a, b in zip(self.top, self.subjects)) / len(self.top), 1)
            row["free missed"] = [f"{p} -> {NAMES()[a]}" for p, a, b in zip(self.prompts, self.top, self.subjects)
                                  if a != b][:12]
        return row


def NAMES():
    from captions import SUBJECTS
    return [s["name"] for s in SUBJECTS]
