"""Processes, one a GPU, that train one model: each on its own samples, all with the mean of their gradients.

train.py starts them and says by RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT who they are; without these a process is a
team of its own. What time it is, rank 0 alone decides: no rank then waits for a step that another one does not take.
"""
import os
from datetime import timedelta
from itertools import zip_longest

import torch
import torch.distributed as dist

RANK, SIZE = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))


def join(device):
    """Gradients go through nccl on GPUs, what concerns the CPU alone always through gloo."""
    if SIZE > 1:
        dist.init_process_group("cpu:gloo,cuda:nccl" if device == "cuda" else "gloo", timeout=timedelta(minutes=5))


def leave():
    if SIZE > 1:
        dist.barrier()
        dist.destroy_process_group()


def agree(number):
    """-> rank 0's number, on every rank."""
    if SIZE == 1:
        return number
    told = torch.tensor(number, dtype=torch.float64)
    dist.broadcast(told, 0)
    return told.item()


@torch.no_grad()
def same(tensors):
    """Every rank gets rank 0's values."""
    if SIZE > 1:
        for t in tensors:
            dist.broadcast(t, 0)


@torch.no_grad()
def mean_gradients(params):
    if SIZE == 1:
        return
    grads = [p.grad for p in params]
    flat = torch.cat([g.flatten().float() for g in grads])
    dist.all_reduce(flat)
    parts = flat.div_(SIZE).split([g.numel() for g in grads])
    torch._foreach_copy_(grads, [part.view_as(g) for part, g in zip(parts, grads)])


def gather(mine):
    """Every rank's list, its items taken in turn -> one list, the same on every rank: the order in which `turns` dealt
    them out."""
    if SIZE == 1:
        return mine
    lists = [None] * SIZE
    dist.all_gather_object(lists, mine)
    nothing = object()
    return [item for row in zip_longest(*lists, fillvalue=nothing) for item in row if item is not nothing]


def turns(items):
    """This rank's share of a list."""
    return items[RANK::SIZE]
