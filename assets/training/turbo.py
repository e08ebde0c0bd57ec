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
from sizes import Size

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
def put_in(student, weights):
    """An adapter's weights, by diffusers' names."""
    for name, module in student.blocks.named_modules():
        if isinstance(module, Lora):
            module.down.copy_(weights[f"transformer.blocks.{name}.lora_A.weight"])
            module.up.copy_(weights[f"transformer.blocks.{name}.lora_B.weight"])


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

    def __init__(self, model, guidance=4., compiled=True, start=None):
        self.model, self.guidance, self.student = model, guidance, student_of(model.dit).train()
        if start:
            put_in(self.student, start)
        if compiled:
            self.student.compile_blocks()
        self.params = [p for p in self.student.parameters() if p.requires_grad]
        team.same(self.params)
        self.optimizer, self.average = adamw(self.params, 1.2e-3 if start else 2e-3), Average(self.params, .995)

    def walk(self, captions, size, factor):
        """One walk from noise to clips, a training step at each of its sigmas. factor(i): the rate's share. -> losses."""
        model, n = self.model, len(captions)
        frames, height, width = size.frames, size.height, size.width
        with torch.no_grad():
            text, empty = model.text(captions), model.text([""] * n)
        x = torch.randn(n, 16, (frames - 1) // 4 + 1, height // 8, width // 8, device=model.device)
        s, losses = scheduler(STEPS, model.device, size.shift), []
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


WALKS = {Size(256, 256, 33): (8, .34), Size(384, 384, 33): (4, .17), Size(512, 512, 33): (2, .21), Size(640, 384, 49): (2, .15),
         Size(320, 192, 81): (4, .13)}  # clips a walk on one GPU, how often


def walks(share=1., smoke=False):
    if smoke:
        return {Size(64, 64, 9): (2, .5), Size(80, 48, 13): (2, .5)}
    return {size: (max(1, round(n * share)), often) for size, (n, often) in WALKS.items()}


def train(model, seconds, seed=17, max_steps=None, share=1., smoke=False, compiled=True, start=None, save=None):
    """start: an adapter's weights to go on from. save(student): called from time to time, by rank 0, and in the end."""
    distiller = Distiller(model, compiled=compiled, start=start)
    torch.manual_seed(seed + 1000 * team.RANK)
    sizes, choice, rng = walks(share, smoke), random.Random(seed), random.Random(seed + 1000 * team.RANK)
    clock, seen, kept = Clock(seconds, max_steps), {}, 0.
    while (passed := clock.passed()) < 1:
        done = clock.step * STEPS
        size = choice.choices(list(sizes), [often for _, often in sizes.values()])[0]
        seen.setdefault(str(size), []).append(
            distiller.walk([sample(rng).caption for _ in range(sizes[size][0])], size,
                           lambda i: rate(done + i, passed, warmup=60, flat=.4, last=.03)))
        clock.tick()
        if clock.step % 20 == 0 or smoke:
            log(f"turbo {clock.step} loss a step", {k: [round(x, 4) for x in torch.stack(v[-20:]).mean(0).tolist()]
                                                    for k, v in seen.items()}, f"{clock.ms():.1f} ms/walk")
            seen = {}
        if save and passed > kept + .25:
            kept = passed
            distiller.average.swap()
            if team.RANK == 0:
                save(distiller.student)
            distiller.average.swap()
    distiller.average.swap()
    if save and team.RANK == 0:
        save(distiller.student)
    return distiller.student.eval()
