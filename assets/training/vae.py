"""The video autoencoder: diffusers' AutoencoderKLWan at a small size, run on whole clips.

The reference walks a clip in chunks of four frames and carries each causal convolution's last frames along; the whole
clip at once gives the same numbers (compare.py holds that to 1e-5), trains and compiles. Three forwards are
replaced for it; parameters and their names stay diffusers' own.
"""
import copy
import math
import random
from contextlib import nullcontext

import torch
import torch.nn.functional as F
from diffusers.models.autoencoders import autoencoder_kl_wan as wan

import sizes
from common import Average, Clock, Muon, adamw, half, log, rate, set_rate

CONFIG = dict(base_dim=24, z_dim=16, dim_mult=[1, 2, 4, 4], num_res_blocks=1, attn_scales=[],
              temperal_downsample=[False, True, True], dropout=0.0)


def resample_whole(self, x, feat_cache=None, feat_idx=[0]):
    """The first frame stands alone: it is neither doubled nor halved in time."""
    if feat_cache is not None:
        return resample_chunked(self, x, feat_cache, feat_idx)
    b, c, t, h, w = x.shape
    if self.mode == "upsample3d" and t > 1:
        pairs = self.time_conv(x[:, :, 1:]).reshape(b, 2, c, t - 1, h, w)
        x = torch.cat([x[:, :, :1], torch.stack((pairs[:, 0], pairs[:, 1]), 3).reshape(b, c, 2 * (t - 1), h, w)], 2)
    t = x.shape[2]
    x = self.resample(x.permute(0, 2, 1, 3, 4).reshape(b * t, c, h, w))
    x = x.view(b, t, *x.shape[1:]).permute(0, 2, 1, 3, 4)
    if self.mode == "downsample3d" and t > 1:
        x = torch.cat([x[:, :, :1], self.time_conv(x)], 2)
    return x


def norm_over_channels(self, x):
    """In x's own precision but for the sum: half of the time of a step is memory moved by norms."""
    with torch.autocast(x.device.type, enabled=False):
        length = torch.linalg.vector_norm(x, dim=1, keepdim=True, dtype=torch.float32).clamp_min(1e-6)
        return x * length.reciprocal().to(x.dtype) * (self.scale * self.gamma).to(x.dtype)


resample_chunked = wan.WanResample.forward
wan.WanResample.forward = resample_whole
wan.WanRMS_norm.forward = norm_over_channels
wan.WanUpsample.forward = lambda self, x: F.interpolate(x, scale_factor=2.0, mode="nearest")


DECODED = 18_000_000  # pixels at a time


class Codec:
    """Latents as the transformer sees them: normalised per channel, [B, 16, T, h, w]."""

    def __init__(self, vae, device):
        self.vae = channels_last(vae.to(device)).eval().requires_grad_(False)
        self.device, self.exact = torch.device(device), False
        self.mean, self.std = [torch.tensor(v, device=device).view(1, -1, 1, 1, 1)
                               for v in (vae.config.latents_mean, vae.config.latents_std)]

    def half(self):
        return nullcontext() if self.exact else half(self.device)

    @torch.no_grad()
    def encode(self, video):
        with self.half():
            moments = encode(self.vae, video.contiguous(memory_format=torch.channels_last_3d))
        return (moments[:, :16].float() - self.mean) / self.std

    @torch.no_grad()
    def decode(self, latents):
        t, h, w = latents.shape[2:]
        at_once = sizes.at_once((4 * t - 3) * 64 * h * w, 8, DECODED)
        with self.half():
            return torch.cat([decode(self.vae, part * self.std + self.mean).float().clamp(-1, 1)
                              for part in latents.split(at_once)])


def encode(vae, video):
    return vae.quant_conv(vae.encoder(video))


def decode(vae, latents):
    return vae.decoder(vae.post_quant_conv(latents))


def channels_last(module):
    for p in module.parameters():
        if p.ndim == 5:
            p.data = p.data.contiguous(memory_format=torch.channels_last_3d)
        elif p.ndim == 4:
            p.data = p.data.contiguous(memory_format=torch.channels_last)
    return module


def psnr(a, b):
    return 10 * math.log10(4 / (a.clamp(-1, 1) - b).square().mean().item())


# ---- training -------------------------------------------------------------------------------------------------------
def quiet_start(vae):
    """Residual branches start silent, resampling as plain averaging and doubling: a new autoencoder is then a blurry
    identity rather than noise."""
    for m in vae.modules():
        if isinstance(m, wan.WanResidualBlock):
            torch.nn.init.zeros_(m.conv2.weight), torch.nn.init.zeros_(m.conv2.bias)
        if isinstance(m, wan.WanAttentionBlock):
            torch.nn.init.zeros_(m.proj.weight), torch.nn.init.zeros_(m.proj.bias)
        if isinstance(m, wan.WanResample):
            conv = m.resample[1]
            k, i = conv.weight.data, torch.arange(min(conv.weight.shape[:2]))
            k.mul_(.3), conv.bias.data.zero_()
            if "down" in m.mode:
                k[i, i, :2, :2] += .25
            else:
                k[i, i, 1, 1] += 1.
            if hasattr(m, "time_conv"):
                k, j = m.time_conv.weight.data, torch.arange(m.time_conv.weight.shape[1])
                k.mul_(.3), m.time_conv.bias.data.zero_()
                if "down" in m.mode:
                    k[j, j, 1:] += .5
                else:
                    k[j, j, 2] += 1.
                    k[j + k.shape[1], j, 2] += 1.


def around(actors, by=4):
    """-> within `by` pixels of an actor, and within `by` pixels of its outline, as 0 or 1."""
    solid, window = (actors > .5).float(), (1, 2 * by + 1, 2 * by + 1)
    near = F.max_pool3d(solid, window, 1, (0, by, by))
    return near, near + F.max_pool3d(-solid, window, 1, (0, by, by))


def loss_of(vae, video, actors, late=False, anchor=None):
    """Absolute and squared error, the same for edges, change and local mean; actors count fourfold, their rim sixfold. late:
    large errors count more, the small ones are small by now. anchor: an autoencoder whose latents should keep their
    meaning."""
    mean, logvar = encode(vae, video).float().chunk(2, 1)
    logvar = logvar.clamp(-20, 5)
    kl = .5 * (mean.square() + logvar.exp() - 1 - logvar).mean()
    rough = .05 * torch.rand(len(video), 1, 1, 1, 1, device=video.device)  # what a sampler leaves: decode it too
    latents = mean + torch.randn_like(mean) * (.5 * logvar).exp() + torch.randn_like(mean) * rough
    d = decode(vae, latents).float() - video
    near, rim = around(actors)
    w = 1 + 3 * near + 2 * rim
    w = w / w.mean()
    edges = (d.diff(dim=-1).abs() * w[..., 1:]).mean() + (d.diff(dim=-2).abs() * w[..., 1:, :]).mean()
    change = (d.diff(dim=2).abs() * w[:, :, 1:]).mean() if d.shape[2] > 1 else 0.
    local = F.avg_pool3d(d, (1, 8, 8)).abs().mean()
    squared = (d.square() * w).mean()
    drift = 0.
    if anchor is not None:
        with torch.no_grad():
            meant = encode(anchor, video)[:, :16].float()
        drift = ((mean - meant) / meant.std((0, 2, 3, 4), keepdim=True).clamp_min(1e-3)).square().mean()
    plain, square = (.5, 6) if late else (1, 2)
    loss = plain * (d.abs() * w).mean() + square * squared + .5 * edges + .25 * change + local + 2e-4 * kl
    return loss + .08 * drift, torch.stack([d.square().mean(), squared, torch.as_tensor(drift, device=d.device)]).detach()


WHOLE = [(17, .2), (33, .55), (49, .15), (81, .1)]                          # frames of the clip that 17 are cut from
FROM = [(256, 256, .45), (512, 512, .25), (384, 384, .15), (384, 640, .08), (192, 320, .07)]  # and its height and width


def cut(world, clips, frames, crop, rng, one_size):
    """Windows of time and place: a motion is as fast as in the clips that people make."""
    size = random_of(rng, FROM)[:2] if not one_size else one_size
    times = []
    for _ in clips:
        whole = max(frames, random_of(rng, WHOLE)[0])
        first = rng.randint(0, whole - frames)
        times.append([(first + i) / (whole - 1) for i in range(frames)])
    return world.render(clips, frames, *size, crop=crop, at=times)


def random_of(rng, rows):
    return rng.choices(rows, [row[-1] for row in rows])[0]


def train(world, draw, seconds, max_steps=None, smoke=False, start=None, lr=8e-4, muon_lr=1e-3):
    """draw(n) -> clips. start: an autoencoder to go on from (then at a lower rate)."""
    device, rng = world.device, random.Random(6)
    vae = start or wan.AutoencoderKLWan(**CONFIG)
    anchor = channels_last(copy.deepcopy(start).to(device)).eval().requires_grad_(False) if start else None
    if start is None:
        quiet_start(vae)
    vae = channels_last(vae.to(device)).train().requires_grad_(True)
    params = list(vae.parameters())
    matrices = [p for p in params if p.ndim >= 4 and p.shape[0] >= 16 and p[0].numel() >= 16]
    known = {id(p) for p in matrices}
    optimizers = [adamw([p for p in params if id(p) not in known], lr), Muon(matrices, muon_lr)]
    average, clock, seen = Average(params), Clock(seconds, max_steps), []
    while (passed := clock.passed()) < 1:
        # from nothing, half of the time goes to short small crops; then 17 frames around an actor
        short = start is None and passed < .5
        n, frames, crop = (1, 5, 32) if smoke else (16, 5, 96) if short else (8, 17, 128)
        set_rate(optimizers, rate(clock.step, passed, flat=.5 if start is None else .3))
        video, actors = cut(world, draw(n), frames, crop, rng, (256, 256) if short or smoke else None)
        with half(device):
            loss, measures = loss_of(vae, video.contiguous(memory_format=torch.channels_last_3d), actors, start is not None,
                                     anchor if clock.step % 4 == 0 else None)
        for o in optimizers:
            o.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(params, 1.)
        for o in optimizers:
            o.step()
        average.update(), clock.tick()
        seen.append(measures)
        if clock.step % 250 == 0 or smoke:
            plain_mse, mse, drift = torch.stack(seen[-250:]).mean(0).tolist()
            drift *= 4  # asked every fourth step
            log(f"vae {clock.step} crops {-10 * math.log10(plain_mse / 4):.2f} dB, actors weighed "
                f"{-10 * math.log10(mse / 4):.2f} dB, drift {drift:.4f}, {clock.ms():.1f} ms/step")
    average.swap()
    vae.eval().requires_grad_(False)
    measure(vae, world, draw, smoke)
    return vae


@torch.no_grad()
def measure(vae, world, draw, smoke=False):
    """Sets latents_mean and latents_std, and logs how well whole clips come back."""
    size, n = (32, 1) if smoke else (256, 16)
    device = torch.device(world.device)
    with half(device):
        latents = torch.cat([encode(vae, world.render(draw(n), 33, size, size)[0])[:, :16].float()
                             for _ in range(1 if smoke else 10)])
    vae.register_to_config(latents_mean=[round(v, 5) for v in latents.mean((0, 2, 3, 4)).tolist()],
                           latents_std=[round(v, 5) for v in latents.std((0, 2, 3, 4)).tolist()])
    size = sizes.Size(32, 32, 33) if smoke else sizes.Size(256, 256, 33)
    log("vae, 33 frames:", quality(Codec(vae, device), world, draw, 1 if smoke else 64, size))


def quality(codec, world, draw, n, size):
    """dB over n clips in fp32: pooled over all pixels, the mean of the clips' own, over actors' pixels and over the rim of
    what moves alone; and the standard deviation over time, in steps of 8 bits, where nothing moves."""
    codec = Codec(codec.vae, codec.device)
    codec.exact = True
    errors, sums = [], dict(actors=[0., 1e-9], rim=[0., 1e-9], flicker=[0., 1e-9])
    at_once = sizes.at_once(size.pixels, 8, DECODED)
    for i in range(0, n, at_once):
        clips = draw(min(n - i, at_once))
        video, actors = world.render(clips, size.frames, size.height, size.width)
        back = codec.decode(codec.encode(video))
        d = (back - video).square()
        errors += d.mean((1, 2, 3, 4)).tolist()
        moving = torch.tensor([any(a.motion != "still" for a in c.actors) for c in clips], device=d.device).view(-1, 1, 1, 1, 1)
        still = (video.std(2).amax(1) < 1e-4).float()
        for name, value, mask in (("actors", d.mean(1, True), (actors > .02).float()), ("rim", d.mean(1, True), around(actors)[1] * moving),
                                  ("flicker", back.std(2).mean(1) * 127.5, still)):
            sums[name][0] += (value * mask).sum().item()
            sums[name][1] += mask.sum().item()
    db = lambda mse: round(-10 * math.log10(mse / 4), 2)
    mean = {k: total / weight for k, (total, weight) in sums.items()}
    return dict(pooled=db(sum(errors) / len(errors)), mean=round(sum(map(db, errors)) / len(errors), 2),
                actors=db(mean["actors"]), rim=db(mean["rim"]), worst=db(max(errors)), flicker=round(mean["flicker"], 3))
