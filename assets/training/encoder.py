"""The text encoder: a small UMT5, taught what captions say before the transformer sees a picture, then frozen.

Trained only through the transformer's loss an encoder of this size collapses: every caption gets nearly the same
embedding (version 1 did). So linear heads ask it what the caption tells. The rows of an actor's words must each answer
what that actor is, does and how large it is, and whether it is the first or the second: what cross-attention finds in
a row is then all it needs to draw that actor. The mean over rows must answer for the whole caption.
"""
from functools import partial

import torch
import torch.nn as nn
import torch.nn.functional as F

from captions import ABSENT_SUBJECT, LABELS, MOTION_LABELS, sample
from common import Clock, Feed, adamw, half, log, rate, set_rate

LENGTH = 47     # rows in training, </s> included; longer captions are cut. With dit.py's one row for all pads: 48
WIDTH = 256
OF_ACTOR = dict(subject=ABSENT_SUBJECT, motion=len(MOTION_LABELS), size=5)


def build(vocabulary):
    from transformers import UMT5Config, UMT5EncoderModel
    rows = 64 * -(-vocabulary // 64)
    encoder = UMT5EncoderModel(UMT5Config(
        vocab_size=rows, d_model=WIDTH, d_kv=64, d_ff=512, num_layers=3, num_heads=4, dropout_rate=0.0,
        feed_forward_proj="gated-gelu", pad_token_id=0, eos_token_id=1))
    return look_around(encoder)


def look_around(encoder):
    """Who does what is a matter of order, and order comes from the position tables alone, which start near zero and
    grow slowly (for 2,000 steps the first answers mixed up left and right). So the heads start with a side: one looks
    back, one ahead, one near, one anywhere. Rows 0..15 of a table: keys at or before the query; 16..31: after it."""
    with torch.no_grad():
        for name, table in encoder.named_parameters():
            if "relative_attention_bias" in name:
                table[16:, 0] = table[1:16, 1] = -5.
                table[:16, 0] = table[16:, 1] = table[0, 1] = 0.
                table[3:16, 2] = table[19:, 2] = -5.
    return encoder


def tokens(spiece, captions, length=LENGTH):
    """-> ids [B, length], 0 after </s>. The empty caption is </s> alone."""
    ids = torch.zeros(len(captions), length, dtype=torch.long)
    for i, caption in enumerate(captions):
        row = (spiece.encode(caption) if caption else [])[:length - 1] + [1]
        ids[i, :len(row)] = torch.tensor(row)
    return ids


def owners(spiece, clips, length=LENGTH):
    """-> [B, length]: the actor a token speaks of, 2 for neither. Tokens never cross a space, so words are counted one
    by one."""
    out = torch.full((len(clips), length), 2)
    for i, clip in enumerate(clips):
        row = [owner for word, owner in zip(clip.caption.split(), clip.owners) for _ in spiece.encode(word)][:length - 1]
        out[i, :len(row)] = torch.tensor(row)
    return out


def labels(clips):
    """-> [B, 7], columns in the order of LABELS."""
    return torch.tensor([[clip.said[k] for k in LABELS] for clip in clips])


def embed(encoder, ids):
    """-> embeddings [B, L, WIDTH], zero after </s>; mask [B, L]."""
    mask = ids != 0
    return encoder(input_ids=ids, attention_mask=mask).last_hidden_state * mask[..., None], mask


class Heads(nn.Module):
    def __init__(self):
        super().__init__()
        self.of_mean = nn.ModuleDict({k: nn.Linear(WIDTH, n) for k, n in LABELS.items()})
        self.of_row = nn.ModuleDict({k: nn.Linear(WIDTH, n) for k, n in {**OF_ACTOR, "which": 2}.items()})

    def forward(self, rows, mask, wanted, owner):
        """-> loss, shares of right answers: one a label from the mean, then subject, motion, size, which from rows."""
        rows, mean = rows.float(), rows.float().sum(1) / mask.sum(1, keepdim=True)
        loss, right = 0., []
        for i, k in enumerate(LABELS):
            answer = self.of_mean[k](mean)
            loss = loss + .3 * F.cross_entropy(answer, wanted[:, i])
            right.append((answer.argmax(1) == wanted[:, i]).float().mean())
        at = owner < 2
        said = {k: torch.stack([wanted[:, list(LABELS).index(f"{k}{j}")] for j in (0, 1)], 1) for k in OF_ACTOR}
        for k, head in self.of_row.items():
            truth = owner[at] if k == "which" else said[k].gather(1, owner.clamp(max=1))[at]
            answer = head(rows[at])
            loss = loss + F.cross_entropy(answer, truth)
            right.append((answer.argmax(1) == truth).float().mean())
        return loss, torch.stack(right)


def examples(spiece, n, rng):
    """-> ids, labels, owners of n captions, cut to the longest of them."""
    clips = [sample(rng, two=rng.random() < .6) for _ in range(n)]
    ids = tokens(spiece, [c.caption for c in clips])
    longest = int((ids != 0).sum(1).max())
    return ids[:, :longest].numpy(), labels(clips).numpy(), owners(spiece, clips)[:, :longest].numpy()


def train(spiece, seed, device, seconds, max_steps=None, smoke=False, start=None, batch=256, pool=None):
    """start: encoder and heads to go on from."""
    encoder, heads = start or (build(spiece.get_piece_size()).to(device), Heads().to(device))
    places = [p for name, p in encoder.named_parameters() if "relative_attention_bias" in name]
    known = {id(p) for p in places}
    rest = [p for p in [*encoder.parameters(), *heads.parameters()] if id(p) not in known]
    optimizers, seen = [adamw(rest, 1e-3 if start else 1.5e-3), adamw(places, 5e-3)], []
    feed = Feed(partial(examples, spiece, 8 if smoke else batch), seed, pool)
    clock = Clock(seconds, max_steps)
    while (passed := clock.passed()) < 1:
        set_rate(optimizers, rate(clock.step, passed, warmup=30, flat=.4))
        ids, wanted, owner = (torch.from_numpy(t).to(device) for t in feed.batch())
        with half(device):
            rows, mask = embed(encoder, ids)
        loss, right = heads(rows, mask, wanted, owner)
        for o in optimizers:
            o.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(places + rest, 1.)
        for o in optimizers:
            o.step()
        clock.tick()
        seen.append(right.detach())
        if clock.step % 250 == 0 or smoke:
            log(f"encoder {clock.step} loss {loss.item():.3f} right", {k: round(v, 3) for k, v in zip(
                [*LABELS, "row subject", "row motion", "row size", "row which"],
                torch.stack(seen[-50:]).mean(0).tolist())}, f"{clock.ms():.1f} ms/step")
    return encoder, heads
