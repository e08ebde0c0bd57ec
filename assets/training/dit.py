"""The transformer: Wan's block, small, with diffusers' parameter names (export.py checks that it computes the same).

Velocity of a straight path: x = (1 - sigma) * latents + sigma * noise, the model predicts noise - latents.

The reference pads the text to 512 rows of which all but n are zero. Equal rows get equal weight in attention, so one
zero row with log(512 - n) added to its logit stands for all of them, exactly: n + 1 keys instead of 512. At the start
those 500 rows would take nearly all of the attention, and version 1 never learned to read past them; here the biases of
cross-attention start so that a zero row's key points away from every query (`pads_unseen`).
"""
import math

import torch
import torch.nn as nn
import torch.nn.functional as F

CONFIG = dict(patch_size=[1, 2, 2], num_attention_heads=5, attention_head_dim=64, in_channels=16, out_channels=16,
              text_dim=256, freq_dim=256, ffn_dim=1280, num_layers=8, cross_attn_norm=True,
              qk_norm="rms_norm_across_heads", eps=1e-6, image_dim=None, added_kv_proj_dim=None, rope_max_seq_len=1024,
              pos_embed_seq_len=None)
TINY = dict(CONFIG, num_attention_heads=2, ffn_dim=256, num_layers=2)  # to try the code
ROWS = 512  # of text, as the reference pads it


KERNEL = dict(name="torch")  # which attention the GPU runs: torch's own choice, or "cudnn" (warm.py measures them)


def over_keys(q, k, v):
    """[B, N, L, D]"""
    if KERNEL["name"] == "cudnn" and q.is_cuda:
        return torch.ops.aten._scaled_dot_product_cudnn_attention(q, k, v, None, torch.is_grad_enabled())[0]
    return F.scaled_dot_product_attention(q, k, v)


class Attention(nn.Module):
    def __init__(self, width, heads, eps):
        super().__init__()
        self.heads = heads
        self.to_q, self.to_k, self.to_v = (nn.Linear(width, width) for _ in range(3))
        self.to_out = nn.ModuleList([nn.Linear(width, width)])
        self.norm_q, self.norm_k = nn.RMSNorm(width, eps=eps), nn.RMSNorm(width, eps=eps)

    def split(self, x):
        return x.unflatten(2, (self.heads, -1))  # [B, L, N, D]

    def over_tokens(self, x, rope):
        q, k, v = self.norm_q(self.to_q(x)), self.norm_k(self.to_k(x)), self.to_v(x)
        q, k = rotate(self.split(q), *rope).type_as(v), rotate(self.split(k), *rope).type_as(v)
        o = over_keys(q.transpose(1, 2), k.transpose(1, 2), self.split(v).transpose(1, 2))
        return self.to_out[0](o.transpose(1, 2).flatten(2))

    def over_text(self, x, text, bias):
        """Few keys: plain matrix products beat a fused kernel with a bias. bias [B, 1, 1, rows]."""
        q, k, v = self.norm_q(self.to_q(x)), self.norm_k(self.to_k(text)), self.to_v(text)
        q, k, v = (self.split(t).transpose(1, 2).type_as(v) for t in (q, k, v))
        weights = ((q @ k.mT).float() * q.shape[-1] ** -.5 + bias).softmax(-1).type_as(v)
        return self.to_out[0]((weights @ v).transpose(1, 2).flatten(2))


def rotate(x, cos, sin):
    """Neighbouring channels are a pair. x [B, L, N, D], cos and sin [L, 1, D/2]."""
    a, b = x.float().unflatten(-1, (-1, 2)).unbind(-1)
    return torch.stack([a * cos - b * sin, a * sin + b * cos], -1).flatten(-2)


class Block(nn.Module):
    def __init__(self, width, heads, ffn, eps):
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps, elementwise_affine=False)
        self.attn1 = Attention(width, heads, eps)
        self.attn2 = Attention(width, heads, eps)
        self.norm2 = nn.LayerNorm(width, eps)
        self.ffn = nn.ModuleDict(dict(net=nn.ModuleList([nn.ModuleDict(dict(proj=nn.Linear(width, ffn))), nn.Identity(),
                                                         nn.Linear(ffn, width)])))
        self.norm3 = nn.LayerNorm(width, eps, elementwise_affine=False)
        self.scale_shift_table = nn.Parameter(torch.randn(1, 6, width) / width ** .5)

    def forward(self, x, text, bias, modulation, cos, sin):
        shift1, scale1, gate1, shift2, scale2, gate2 = (self.scale_shift_table + modulation.float()).chunk(6, 1)
        h = (self.norm1(x.float()) * (1 + scale1) + shift1).type_as(x)
        x = (x.float() + self.attn1.over_tokens(h, (cos, sin)) * gate1).type_as(x)
        h = self.norm2(x.float()).type_as(x)
        x = x + self.attn2.over_text(h, text, bias)
        h = (self.norm3(x.float()) * (1 + scale2) + shift2).type_as(x)
        h = self.ffn["net"][2](F.gelu(self.ffn["net"][0]["proj"](h), approximate="tanh"))
        return (x.float() + h * gate2).type_as(x)


def two_layers(inside, outside):
    return nn.ModuleDict(dict(linear_1=nn.Linear(inside, outside), linear_2=nn.Linear(outside, outside)))


class Transformer(nn.Module):
    def __init__(self, config=CONFIG):
        super().__init__()
        self.config, self.head_dim = config, config["attention_head_dim"]
        width, eps = config["num_attention_heads"] * self.head_dim, config["eps"]
        self.patch_embedding = nn.Conv3d(config["in_channels"], width, config["patch_size"], config["patch_size"])
        self.condition_embedder = nn.ModuleDict(dict(
            time_embedder=two_layers(config["freq_dim"], width), time_proj=nn.Linear(width, 6 * width),
            text_embedder=two_layers(config["text_dim"], width)))
        self.blocks = nn.ModuleList(Block(width, config["num_attention_heads"], config["ffn_dim"], eps)
                                    for _ in range(config["num_layers"]))
        self.norm_out = nn.LayerNorm(width, eps, elementwise_affine=False)
        self.proj_out = nn.Linear(width, 4 * config["out_channels"])
        self.scale_shift_table = nn.Parameter(torch.randn(1, 2, width) / width ** .5)
        self.tables = {}

    def start(self):
        """Silent output, readable text."""
        nn.init.zeros_(self.proj_out.weight), nn.init.zeros_(self.proj_out.bias)
        for b in self.blocks:
            pads_unseen(b.attn2)
        text = self.condition_embedder["text_embedder"]
        for layer in (text["linear_1"], text["linear_2"]):  # a zero row stays zero, others keep their size
            nn.init.normal_(layer.weight, std=1.3 * layer.in_features ** -.5), nn.init.zeros_(layer.bias)
        return self

    def compile_blocks(self):
        """One graph a shape, which all blocks share."""
        torch._dynamo.config.recompile_limit = 64
        for block in self.blocks:
            block.compile(dynamic=False)
        return self

    def rope(self, frames, rows, columns, device):
        """Of head_dim channels each axis turns a share: rows and columns a third each, rounded down to even, time the
        rest."""
        key = frames, rows, columns, str(device)
        if key not in self.tables:
            side = 2 * (self.head_dim // 6)
            angles = []
            for axis, (n, dim) in enumerate(((frames, self.head_dim - 2 * side), (rows, side), (columns, side))):
                speed = 10000. ** (-torch.arange(0, dim, 2, dtype=torch.float64) / dim)
                a = torch.outer(torch.arange(n, dtype=torch.float64), speed)
                shape = [1, 1, 1, dim // 2]
                shape[axis] = n
                angles.append(a.view(shape).expand(frames, rows, columns, -1))
            angle = torch.cat(angles, -1).reshape(frames * rows * columns, 1, -1)
            self.tables[key] = angle.cos().float().to(device), angle.sin().float().to(device)
        return self.tables[key]

    def forward(self, latents, sigma, text, bias):
        """latents [B, 16, T, h, w], sigma [B] -> velocity of the same shape. text, bias: see pack_text."""
        b, _, t, h, w = latents.shape
        emb = self.condition_embedder
        cos, sin = self.rope(t, h // 2, w // 2, latents.device)
        x = self.patch_embedding(latents).flatten(2).transpose(1, 2).contiguous()
        half = torch.arange(128, device=latents.device, dtype=torch.float32)
        angle = (sigma.float() * 1000)[:, None] * torch.exp(-math.log(10000) * half / 128)
        time = two(emb["time_embedder"], torch.cat([angle.cos(), angle.sin()], -1), F.silu)
        modulation = emb["time_proj"](F.silu(time)).unflatten(1, (6, -1))
        text = two(emb["text_embedder"], text, lambda y: F.gelu(y, approximate="tanh"))
        for block in self.blocks:
            x = block(x, text, bias, modulation, cos, sin)
        shift, scale = (self.scale_shift_table + time[:, None]).chunk(2, 1)
        x = self.proj_out((self.norm_out(x.float()) * (1 + scale) + shift).type_as(x))
        x = x.view(b, t, h // 2, w // 2, 2, 2, -1).permute(0, 6, 1, 2, 4, 3, 5)
        return x.reshape(b, -1, t, h, w)


def two(layers, x, between):
    return layers["linear_2"](between(layers["linear_1"](x)))


def pads_unseen(attention):
    """A zero row's key is its bias alone; let it point against the common part of all queries."""
    way = torch.sign(torch.randn(attention.to_k.bias.shape))
    attention.to_k.bias.data.copy_(-.25 * way)
    attention.to_q.bias.data.copy_(.8 * way)
    attention.norm_q.weight.data.fill_(1.5)


def pack_text(rows, mask):
    """Embeddings [B, L, C] (zero beyond n) -> [B, L + 1, C] and the bias [B, 1, 1, L + 1] that makes row L stand for
    the 512 - n zero rows."""
    n = mask.sum(1, keepdim=True)
    bias = torch.cat([torch.zeros(mask.shape, device=mask.device).masked_fill(~mask, -1e4), torch.log(ROWS - n.float())], 1)
    return F.pad(rows, (0, 0, 0, 1)), bias[:, None, None]


def draw_sigma(n, device, early=.4, shift=3.):
    """What the caption decides, it decides above .8: a share of `early` falls there, the rest as flow_shift 3 spreads them.
    A larger clip's shift moves them all to where as much of it is hidden."""
    u = torch.rand(n, device=device)
    sigma = torch.where(torch.rand(n, device=device) < early, .8 + .2 * torch.rand(n, device=device), 3 * u / (1 + 2 * u))
    more = shift / 3
    return more * sigma / (1 + (more - 1) * sigma)
