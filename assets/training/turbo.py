"""The few-step variant: a LoRA that makes STEPS unguided UniPC steps do what the guided model does in thirty.

On-policy: the student walks its own path from noise. At each of its steps the guided model goes on from where the
student stands, in small steps, to the student's next sigma; the student's one step, through the real sampler (history
and corrector included), must land there. Every error is corrected from where it was made, nothing is averaged over
paths, and guidance is learned on the way.
"""
import copy
import random

import torch
import torch.nn as nn
import torch.nn.functional as F

import team
from captions import sample
from common import Average, Clock, adamw, log, rate, set_rate
from sampling import scheduler

STEPS, RANK = 4, 16
TARGETS = ("to_q", "to_k", "to_v", "to_out.0", "net.0.proj", "net.2")
INNER = 2  # midpoint steps of the teacher in one of the student's


class Lora(nn.Module):
    """weight + up @ down; alpha equals rank, so the scale is 1."""

    def __init__(self, linear, rank=RANK):
        super().__init__()
        self.base = linear.requires_grad_(False)
        device = linear.weight.device
        self.down = nn.Parameter(torch.randn(rank, linear.in_features, device=device) * linear.in_features ** -.5)
        self.up = nn.Parameter(torch.zeros(linear.out_features, rank, device=device))

    def forward(self, x):
        return F.linear(x, self.base.weight + self.up @ self.down, self.base.bias)


def student_of(dit):
    """A copy whose block matrices carry a LoRA; everything else is frozen."""
    student = copy.deepcopy(dit).requires_grad_(False)
    for name, module in list(student.blocks.named_modules()):
        if isinstance(module, nn.Linear) and name.endswith(TARGETS):
            parent, _, leaf = name.rpartition(".")
            parent = student.blocks.get_submodule(parent)
            if isinstance(parent, nn.ModuleList):
                parent[int(leaf)] = Lora(module)
            elif isinstance(parent, nn.ModuleDict):
                parent[leaf] = Lora(module)
            else:
                setattr(parent, leaf, Lora(module))
    return student


def state(student):
    """In diffusers' names."""
    out = {}
    for name, module in student.blocks.named_modules():
        if isinstance(module, Lora):
            out[f"transformer.blocks.{name}.lora_A.weight"] = module.down.detach()
            out[f"transformer.blocks.{name}.lora_B.weight"] = module.up.detach()
    return {k: v.to(torch.bfloat16).cpu().contiguous() for k, v in out.items()}


@torch.no_grad()
def merged(dit, weights):
    """A copy of the transformer with the adapter's weights added to its own."""
    dit = copy.deepcopy(dit)
    for name in {k.rpartition(".lora_")[0] for k in weights}:
        up, down = (weights[f"{name}.lora_{which}.weight"].float() for which in "BA")
        linear = dit.get_submodule(name.removeprefix("transformer."))
        linear.weight += (up @ down).to(linear.weight.device)
    return dit


@torch.no_grad()
def guided_path(model, x, start, end, text, empty, guidance, inner=INNER):
    """The guided model's own way from sigma `start` to `end`: midpoint steps."""
    for i in range(inner):
        a, b = start + (end - start) * i / inner, start + (end - start) * (i + 1) / inner
        half = x + (b - a) / 2 * model.guided(x, a, text, empty, guidance)
        x = x + (b - a) * model.guided(half, (a + b) / 2, text, empty, guidance)
    return x


def detach_history(s):
    s.model_outputs = [m if m is None else m.detach() for m in s.model_outputs]
    s.last_sample = s.last_sample.detach()


class Distiller:
    """model: frozen, it teaches."""

    def __init__(self, model, guidance=4., compiled=True):
        self.model, self.guidance, self.student = model, guidance, student_of(model.dit).train()
        if compiled:
            self.student.compile_blocks()
        self.params = [p for p in self.student.parameters() if p.requires_grad]
        team.same(self.params)
        self.optimizer, self.average = adamw(self.params, 2e-3), Average(self.params, .995)

    def walk(self, captions, frames, height, width, factor):
        """One walk from noise to clips, a training step at each of its sigmas. factor(i): the rate's share. -> losses."""
        model, n = self.model, len(captions)
        with torch.no_grad():
            text, empty = model.text(captions), model.text([""] * n)
        x = torch.randn(n, 16, (frames - 1) // 4 + 1, height // 8, width // 8, device=model.device)
        s, losses = scheduler(STEPS, model.device), []
        sigmas = s.sigmas.tolist()
        for i, t in enumerate(s.timesteps):
            goal = guided_path(model, x, sigmas[i], sigmas[i + 1], text, empty, self.guidance)
            landed = s.step(model.velocity(x, t / 1000, text, self.student), t, x, return_dict=False)[0]
            loss = ((landed - goal) / (sigmas[i] - sigmas[i + 1])).square().mean()
            self.optimizer.zero_grad()
            loss.backward()
            team.mean_gradients(self.params)
            nn.utils.clip_grad_norm_(self.params, 1.)
            set_rate([self.optimizer], factor(i))
            self.optimizer.step()
            self.average.update()
            detach_history(s)
            x = landed.detach()
            losses.append(loss.detach())
        return torch.stack(losses)


def clip_size(share=1., smoke=False):
    """-> clips a walk on one GPU, their frames, height, width."""
    return (2, 9, 64, 64) if smoke else (2 * round(8 * share), 33, 256, 256)


def train(model, seconds, seed=17, max_steps=None, share=1., smoke=False, compiled=True):
    distiller, (n, *size) = Distiller(model, compiled=compiled), clip_size(share, smoke)
    torch.manual_seed(seed + 1000 * team.RANK)
    clock, rng, seen = Clock(seconds, max_steps), random.Random(seed + 1000 * team.RANK), []
    while (passed := clock.passed()) < 1:
        done = clock.step * STEPS
        seen.append(distiller.walk([sample(rng).caption for _ in range(n)], *size,
                                   lambda i: rate(done + i, passed, warmup=60, flat=.4, last=.03)))
        clock.tick()
        if clock.step % 20 == 0 or smoke:
            log(f"turbo {clock.step} loss a step {[round(v, 4) for v in torch.stack(seen[-20:]).mean(0).tolist()]} "
                f"{clock.ms():.1f} ms/walk")
    distiller.average.swap()
    return distiller.student.eval()
