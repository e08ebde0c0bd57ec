"""The emoji world: what a clip shows (Clip) and how it looks (World.render), drawn on the GPU while training.

A clip holds one or two actors before a scene. Actors are sprites moved, turned and scaled along a closed formula of
time, scenes are gradients and a few tiled textures: every pixel of every frame is known, so captions are exact,
classifiers have ground truth, and no clip is ever stored.

Units: positions and sizes are shares of the frame's shorter side; time runs from 0 to 1 over the clip, so that a
shorter clip shows the same motion faster.
"""
import math
from dataclasses import dataclass, field

import numpy as np
import torch
import torch.nn.functional as F

COLORS = dict(red=(214, 48, 49), orange=(243, 146, 55), yellow=(250, 214, 82), green=(76, 175, 80),
              blue=(52, 120, 219), purple=(130, 80, 180), pink=(244, 143, 177), white=(245, 245, 245),
              black=(22, 22, 26), gray=(140, 144, 150), brown=(121, 85, 62), teal=(38, 160, 150))
SCENES = ["sky", "sea", "meadow", "night", "desert", "snow", "sunset", "space", "water", "rain"]
BACKDROPS = SCENES + ["plain " + color for color in COLORS]  # what the judge tells apart

# name: (travel x, travel y) over the clip; the rest of the motions have no net travel
TRAVELS = dict(left=(-1, 0), right=(1, 0), up=(0, -1), down=(0, 1), upright=(.8, -.8), upleft=(-.8, -.8),
               downright=(.8, .8), downleft=(-.8, .8), rollright=(1, 0), rollleft=(-1, 0), zigzag=(1, 0))
MOTIONS = list(TRAVELS) + ["cw", "ccw", "grow", "shrink", "bounce", "orbit", "sway", "jump", "still", "shake", "pulse"]


@dataclass
class Actor:
    subject: int        # row of subjects.txt
    motion: str         # one of MOTIONS
    size: float         # longer side at rest
    x: float            # where its path is centred, 0..1 across the frame
    y: float
    phase: float = 0.   # where an orbit starts


@dataclass
class Clip:
    backdrop: str                               # one of BACKDROPS
    actors: list                                # one or two, the first one on the left; to teach counting, more
    chance: list = field(default_factory=list)  # eight numbers in 0..1: horizon, drift, offsets
    caption: str = ""
    said: dict = field(default_factory=dict)    # what the caption tells, as labels (captions.py)
    owners: list = field(default_factory=list)  # of each word: actor 0, actor 1, 2 for neither


def path(motion, t, size, alone):
    """t [T] -> offset x, offset y, scale, angle, each [T]."""
    zero, tau, u = np.zeros_like(t), 2 * math.pi, t - .5
    x, y, scale, angle = zero, zero, zero + 1, zero
    reach = 1. if alone else .6  # two actors share the frame
    if motion in TRAVELS:
        travel = reach * min(.62, 1.15 - size)  # large ones stay in sight
        x, y = TRAVELS[motion][0] * travel * u, TRAVELS[motion][1] * travel * u
    if motion == "rollright": angle = tau * u
    if motion == "rollleft": angle = -tau * u
    if motion == "zigzag": y = .13 * reach * np.sin(2 * tau * t)
    if motion == "cw": angle = tau * t
    if motion == "ccw": angle = -tau * t
    if motion == "grow": scale = .5 + .8 * t
    if motion == "shrink": scale = 1.3 - .8 * t
    if motion == "bounce": y = .13 - .28 * reach * np.abs(np.sin(tau * t))
    if motion == "sway": angle = .5 * np.sin(1.5 * tau * t)
    if motion == "jump": y = .12 - 1.4 * reach * t * (1 - t)
    if motion == "shake": x, angle = .03 * np.sin(4 * tau * t), .12 * np.sin(4 * tau * t)
    if motion == "pulse": scale = 1 + .22 * np.sin(2 * tau * t)
    return x, y, scale, angle


def orbit(t, phase, alone):
    turn, radius = 2 * math.pi * (t + phase), .2 if alone else .13
    return radius * np.cos(turn), radius * np.sin(turn), np.ones_like(t), np.zeros_like(t)


# ---- textures: 512 x 512 tiles that repeat without a seam ------------------------------------------------------------
TILE = 512


def smooth_noise(octaves, stretch=(1, 1), seed=0):
    """Sum of bicubic noise, `octaves` cells a side; stretch: more cells along (x, y)."""
    g, total = torch.Generator().manual_seed(seed), torch.zeros(TILE, TILE)
    for cells in octaves:
        r = torch.rand(1, 1, cells * stretch[1], cells * stretch[0], generator=g)
        r = torch.cat([r, r[..., :1]], -1)
        r = torch.cat([r, r[..., :1, :]], -2)
        total += F.interpolate(r, (TILE, TILE), mode="bicubic", align_corners=True)[0, 0] / cells ** .7
    return (total - total.min()) / (total.max() - total.min())


def spots(count, smallest, largest, ring=False, seed=0):
    """Soft discs, or rings, of random radius (texels) and brightness."""
    rs, out = np.random.RandomState(seed), np.zeros((TILE, TILE), np.float32)
    y, x = np.mgrid[0:TILE, 0:TILE].astype(np.float32)
    for _ in range(count):
        cx, cy, r = rs.rand() * TILE, rs.rand() * TILE, smallest + (largest - smallest) * rs.rand() ** 2
        dx, dy = np.abs(x - cx), np.abs(y - cy)
        d = np.hypot(np.minimum(dx, TILE - dx), np.minimum(dy, TILE - dy))
        shape = np.exp(-((d - r) / 2.2) ** 2) if ring else np.clip((r + 1.5 - d) / 3, 0, 1)
        out = np.maximum(out, shape * (.5 + .5 * rs.rand()))
    return torch.from_numpy(out)


def streaks(count, seed=0):
    """Slanted lines with soft sides and ends: rain."""
    rs, out = np.random.RandomState(seed), np.zeros((TILE, TILE), np.float32)
    y, x = np.mgrid[0:TILE, 0:TILE].astype(np.float32)
    for _ in range(count):
        cx, cy, half = rs.rand() * TILE, rs.rand() * TILE, 16 + 14 * rs.rand()
        dy = (y - cy + TILE / 2) % TILE - TILE / 2
        dx = (x - cx + TILE / 2) % TILE - TILE / 2 + dy / 5
        out = np.maximum(out, np.exp(-(dx / 2) ** 2) * np.clip((half - np.abs(dy)) / 8, 0, 1) * (.5 + .5 * rs.rand()))
    return torch.from_numpy(out)


def make_textures():
    return dict(stars=spots(80, .6, 3.2, seed=1), flakes=spots(110, 2.5, 5.5, seed=2),
                bubbles=spots(30, 8, 22, ring=True, seed=3), clouds=((smooth_noise([4, 8, 16], seed=4) - .5) * 3).clamp(0, 1),
                grass=smooth_noise([24, 48], seed=5), waves=smooth_noise([8, 16], (1, 3), seed=6),
                sand=smooth_noise([6, 12], (1, 2), seed=7), rain=streaks(90, seed=8))


# ---- scenes: each paints [b, 3, T, H, W] in 0..1 --------------------------------------------------------------------
class View:
    """One scene's share of a batch. x, y: [b, T, H, W] in shorter sides; down: 0 at the top, 1 at the bottom;
    t: time; r: the clips' eight chance numbers; wide, tall: the whole frame."""

    def __init__(self, textures, clips, x, y, down, t, wide, tall):
        b, shape = len(clips), (len(clips), t.shape[1], down.shape[2], x.shape[3])
        self.textures, self.clips, self.t = textures, clips, t
        self.x, self.y, self.down = x.expand(shape), y.expand(shape), down.expand(shape)
        chance = torch.tensor([c.chance for c in clips], dtype=torch.float32)
        self.r = chance.T.reshape(8, b, 1, 1, 1).to(x.device)
        self.drift, self.wide, self.tall = (self.r[0] - .5) * .5, wide, tall

    def rgb(self, *color):
        return torch.tensor(color, dtype=torch.float32, device=self.x.device).view(1, 3, 1, 1, 1) / 255

    def mix(self, a, b, share):
        return a + (b - a) * share.clamp(0, 1)[:, None]

    def texture(self, name, x, y):
        grid = torch.stack([torch.remainder(x, 1), torch.remainder(y, 1)], -1) * 2 - 1
        b, t, h, w, _ = grid.shape
        tile = self.textures[name][None, None].expand(b, -1, -1, -1)
        out = F.grid_sample(tile, grid.view(b, t * h, w, 2), mode="bilinear", padding_mode="border", align_corners=False)
        return out.view(b, t, h, w)

    def edge(self, line):
        """1 below the line, 0 above, a few pixels soft."""
        return ((self.down - line) * 60).clamp(0, 1)


def paint_plain(v):
    c = torch.tensor([COLORS[clip.backdrop[6:]] for clip in v.clips], dtype=torch.float32, device=v.x.device)
    c = c.view(-1, 3, 1, 1, 1) / 255
    return v.mix(c * .94 + .06, c * .86, v.down)


def paint_sky(v):
    g = v.mix(v.rgb(78, 150, 232), v.rgb(188, 222, 248), v.down)
    return v.mix(g, v.rgb(255, 255, 255), .85 * v.texture("clouds", v.x * .5 + v.r[1] + v.drift * v.t * .4, v.y * .6 + v.r[2]))


def paint_sea(v):
    horizon = .55 + .1 * (v.r[3] - .5) + .008 * torch.sin(20 * v.x + 8 * v.t + 6 * v.r[1])
    air = v.mix(v.rgb(140, 200, 245), v.rgb(225, 240, 250), v.down / .6)
    sea = v.mix(v.rgb(28, 110, 180), v.rgb(10, 64, 130), (v.down - .5) * 2)
    swell = v.texture("waves", v.x * .6 + v.r[1] + .15 * v.t, v.y * 1.6 + v.r[2] + .05 * torch.sin(2 * math.pi * v.t))
    return v.mix(air, sea + .2 * (swell - .5)[:, None], v.edge(horizon))


def ground(v, air, soil, texture, strength):
    horizon = .58 + .1 * (v.r[3] - .5) + .03 * torch.sin(5 * v.x + 6 * v.r[1])
    above = v.mix(v.rgb(*air[0]), v.rgb(*air[1]), v.down / .6)
    below = v.mix(v.rgb(*soil[0]), v.rgb(*soil[1]), (v.down - .5) * 2)
    grain = v.texture(texture, v.x * .8 + v.r[1], v.y * 1.2 + v.r[2]) - .5
    return v.mix(above, below + strength * grain[:, None], v.edge(horizon))


def paint_meadow(v):
    return ground(v, [(110, 180, 240), (205, 232, 250)], [(96, 178, 72), (56, 130, 48)], "grass", .16)


def paint_desert(v):
    return ground(v, [(150, 195, 235), (250, 232, 200)], [(236, 200, 130), (206, 160, 92)], "sand", .12)


def paint_snow(v):
    g = ground(v, [(150, 168, 190), (205, 215, 228)], [(246, 249, 253), (214, 226, 240)], "sand", .03)
    flakes = v.texture("flakes", v.x * .7 + v.r[4] + .03 * torch.sin(2 * math.pi * v.t), v.y * .7 + v.r[5] - .3 * v.t)
    return v.mix(g, v.rgb(255, 255, 255), .9 * flakes)


def paint_night(v):
    g = v.mix(v.rgb(10, 14, 44), v.rgb(40, 52, 110), v.down)
    return v.mix(g, v.rgb(255, 250, 225), .9 * v.texture("stars", v.x * .6 + v.r[1], v.y * .6 + v.r[2]))


def paint_sunset(v):
    horizon = .66 + .06 * (v.r[3] - .5)
    g = v.mix(v.rgb(92, 52, 120), v.rgb(252, 140, 70), v.down / .62)
    sun = torch.hypot(v.x - v.wide * (.3 + .4 * v.r[4]), v.y - horizon * v.tall)
    g = v.mix(g, v.rgb(255, 224, 130), (.16 - sun) * 40)
    return v.mix(g, v.rgb(52, 28, 62), v.edge(horizon + .006 * torch.sin(17 * v.x + 6 * v.r[1])))


def paint_space(v):
    g = v.mix(v.rgb(4, 4, 12), v.rgb(34, 12, 58), v.down + .3 * torch.sin(3 * v.x + 6 * v.r[1]))
    return v.mix(g, v.rgb(255, 255, 255), .9 * v.texture("stars", v.x * .5 + v.r[1] + v.drift * v.t * .5, v.y * .5 + v.r[2]))


def paint_water(v):
    g = v.mix(v.rgb(64, 170, 200), v.rgb(8, 52, 96), v.down)
    rise = v.texture("bubbles", v.x * .7 + v.r[1] + .015 * torch.sin(9 * v.t + 9 * v.r[3]), v.y * .7 + v.r[2] + .25 * v.t)
    return v.mix(g, v.rgb(210, 240, 250), .6 * rise)


def paint_rain(v):
    g = v.mix(v.rgb(120, 130, 145), v.rgb(86, 94, 108), v.down)
    return v.mix(g, v.rgb(215, 225, 240), .7 * v.texture("rain", v.x * .6 + v.r[1] + .08 * v.t, v.y * .6 + v.r[2] - .4 * v.t))


PAINTERS = {scene: globals()["paint_" + scene] for scene in SCENES + ["plain"]}


PIXELS = 1 << 24  # drawn at a time
SIDES = 352, 248, 176, 124, 88, 62, 44, 31  # of the copies of each sprite, blurred as the size it is shown at wants


class Sprites:
    """All subjects at all sizes in one table of texels, premultiplied, so that bilinear lookups leave no dark rim."""

    def __init__(self, path, device):
        from sprites import load
        rgba = torch.from_numpy(load(path)).permute(0, 3, 1, 2)
        self.count, self.starts, parts, start = len(rgba), [], [], 0
        for side in SIDES:
            self.starts.append(start)
            for part in rgba.split(46):
                part = part.to(device).float() / 255
                part[:, :3] *= part[:, 3:]
                small = F.interpolate(part, (side, side), mode="bilinear", antialias=True, align_corners=False)
                parts.append((small.clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).reshape(-1, 4))
            start += self.count * side * side
        self.texels = torch.cat(parts)
        self.sides = torch.tensor(SIDES, device=device)
        self.starts = torch.tensor(self.starts, device=device)

    def level(self, pixels):
        """pixels: how large the whole picture is shown. The smallest copy that has about as many texels."""
        wanted = .95 * pixels
        return (self.sides.view(-1, *[1] * pixels.ndim) >= wanted).sum(0).sub(1).clamp(0)

    def look(self, subject, pixels, u, v):
        """subject [b], pixels [b, T], u and v [b, T, h, w] in -1..1 -> [b, 4, T, h, w] in 0..1, zeros outside."""
        level = self.level(pixels)
        side = self.sides[level][..., None, None]
        start = (self.starts[level] + subject[:, None] * self.sides[level] ** 2)[..., None, None]
        x, y = (((w + 1) / 2 * side - .5).clamp(0, None) for w in (u, v))
        x, y = torch.minimum(x, side - 1.), torch.minimum(y, side - 1.)
        left, top = torch.minimum(x.long(), side - 2), torch.minimum(y.long(), side - 2)
        at = start + top * side + left
        fx, fy = (x - left)[..., None], (y - top)[..., None]
        rows = [torch.lerp(self.texels[i].float(), self.texels[i + 1].float(), fx) for i in (at, at + side)]
        return torch.lerp(*rows, fy).permute(0, 4, 1, 2, 3) / 255


class World:
    def __init__(self, sprites_npz, device):
        self.sprites = Sprites(sprites_npz, device)
        self.device, self.n_subjects = device, self.sprites.count
        self.textures = {k: v.to(device) for k, v in make_textures().items()}

    @torch.no_grad()
    def render(self, clips, frames, height, width, crop=None, at=None):
        """-> video [B, 3, frames, h, w] in -1..1, and how much of each pixel is an actor [B, 1, frames, h, w] in 0..1.

        crop: draw only a window of crop x crop pixels a clip, around where its first actor is half-way.
        at: the times of each clip's frames, or one time a clip for single frames, instead of 0..1 over all frames (a plain
        single frame is time 0)."""
        shorter, device, n = min(height, width), self.device, len(clips)
        wide, tall = width / shorter, height / shorter
        steps = np.tile(np.linspace(0, 1, frames), (n, 1)) if at is None else np.array(at).reshape(n, frames)
        h, w, row, column = height, width, torch.zeros(n), torch.zeros(n)
        if crop:
            h = w = crop
            first = self.paths([c.actors[0] for c in clips], clips, steps, wide, tall)[:2, :, frames // 2] * shorter - crop / 2
            jitter = np.array([c.chance[:2] for c in clips]).T * crop / 4 - crop / 8
            corner = np.clip((first + jitter).round(), 0, [[width - crop], [height - crop]])
            column, row = torch.from_numpy(corner).float()
        t = torch.tensor(steps, dtype=torch.float32, device=device).view(n, frames, 1, 1)
        y = ((torch.arange(h) + row[:, None] + .5) / shorter).view(n, 1, h, 1).to(device)
        x = ((torch.arange(w) + column[:, None] + .5) / shorter).view(n, 1, 1, w).to(device)
        video = torch.empty(n, 3, frames, h, w, device=device)
        actors = torch.zeros(n, 1, frames, h, w, device=device)

        scenes = {}
        for i, clip in enumerate(clips):
            scenes.setdefault(clip.backdrop.split()[0], []).append(i)
        for scene, rows in scenes.items():
            view = View(self.textures, [clips[i] for i in rows], x[rows], y[rows], y[rows] / tall, t[rows], wide, tall)
            video[rows] = PAINTERS[scene](view).clamp(0, 1)

        for j in range(max(len(clip.actors) for clip in clips)):
            rows = [i for i, clip in enumerate(clips) if len(clip.actors) > j]
            at_once = max(1, PIXELS // (frames * h * w))
            for k in range(0, len(rows), at_once):
                some = rows[k:k + at_once]
                cast = [clips[i].actors[j] for i in some]
                place = torch.tensor(self.paths(cast, [clips[i] for i in some], steps[some], wide, tall),
                                     dtype=torch.float32, device=device)
                cx, cy, half, angle = place[..., None, None].unbind(0)  # each [b, T, 1, 1]
                dx, dy, c, s = (x[some] - cx) / half, (y[some] - cy) / half, torch.cos(angle), torch.sin(angle)
                subject = torch.tensor([a.subject for a in cast], device=device)
                drawn = self.sprites.look(subject, 2 * shorter * place[2], c * dx + s * dy, c * dy - s * dx)
                video[some] = video[some] * (1 - drawn[:, 3:]) + drawn[:, :3]
                actors[some] = torch.maximum(actors[some], drawn[:, 3:])
        return video.clamp(0, 1) * 2 - 1, actors

    @staticmethod
    def paths(cast, clips, times, wide, tall):
        """times [b, T] -> [4, b, T]: centre x, centre y, half size, angle, in shorter sides."""
        out = np.empty((4, *times.shape))
        for i, (a, clip, t) in enumerate(zip(cast, clips, times)):
            alone = len(clip.actors) == 1
            dx, dy, scale, angle = orbit(t, a.phase, alone) if a.motion == "orbit" else path(a.motion, t, a.size, alone)
            out[:, i] = a.x * wide + dx, a.y * tall + dy, a.size * scale / 2, angle
        return out
