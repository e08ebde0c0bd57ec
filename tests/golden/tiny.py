"""Random weights of tiny pipelines, the same bytes as tests/golden/tiny.h draws in C.

A tensor's values depend on its name alone: FNV-1a (32 bit) of the UTF-8 name seeds mt19937
(init_genrand), and value = float32(mean + std * 3.4641016 * ((r32 >> 8) * 2^-24 - 0.5)), computed in
double. That is uniform noise with the given mean and standard deviation. So that tiny checkpoints are
never committed: both sides draw them.

    import tiny
    tiny.fill_module(model)                    # every parameter and buffer of the state dict
    tiny.write_list(model, "data/dit_tiny.txt") # names and shapes, for tiny_write_list() in C
"""

import math

import numpy as np


def fnv1a(name):
    h = 2166136261
    for b in name.encode("utf-8"):
        h = ((h ^ b) * 16777619) & 0xFFFFFFFF
    return h


def words(name, n):
    """n 32-bit outputs of mt19937 seeded with fnv1a(name)."""
    rng = np.random.RandomState(fnv1a(name))
    return rng.randint(0, 2**32, size=n, dtype=np.uint32)


def fill(name, shape, std=1.0, mean=0.0):
    """float32 array of the shape."""
    n = int(np.prod(shape, dtype=np.int64)) if len(shape) else 1
    u = (words(name, n) >> np.uint32(8)).astype(np.float64) * 2.0**-24
    return (mean + std * 3.4641016 * (u - 0.5)).astype(np.float32).reshape(shape)


def scale(name, shape):
    """(std, mean) that keep activations of order one and leave no parameter trivial; = tiny_scale()."""
    if name.endswith("bias"):
        return 0.1, 0.0
    if name.endswith("gamma") or (name.endswith("weight") and len(shape) == 1):
        return 0.2, 1.0
    if name == "shared.weight" or name.endswith("embed_tokens.weight"):
        return 1.0, 0.0
    if name.endswith("weight") and len(shape) >= 2:
        return 1.0 / math.sqrt(float(np.prod(shape[1:], dtype=np.int64))), 0.0
    return 0.2, 0.0


def default(name, shape):
    std, mean = scale(name, shape)
    return fill(name, shape, std, mean)


def fill_module(module, prefix=""):
    """Overwrites every float tensor of module.state_dict() (tied ones get the last name's values)."""
    import torch

    with torch.no_grad():
        for name, t in module.state_dict().items():
            if t.is_floating_point():
                t.copy_(torch.from_numpy(default(prefix + name, tuple(t.shape))))
    return module


def write_list(module, path, prefix=""):
    """One line a tensor: name, then its dimensions."""
    with open(path, "w") as f:
        for name, t in module.state_dict().items():
            if t.is_floating_point():
                f.write(" ".join([prefix + name] + [str(d) for d in t.shape]) + "\n")


def _words_plain(seed, n):
    """mt19937 as wan.md 6.1 writes it: the judge of words()."""
    st = [seed & 0xFFFFFFFF]
    for j in range(1, 624):
        st.append((1812433253 * (st[j - 1] ^ (st[j - 1] >> 30)) + j) & 0xFFFFFFFF)
    out = []
    while len(out) < n:
        for i in range(624):
            y = (st[i] & 0x80000000) | (st[(i + 1) % 624] & 0x7FFFFFFF)
            st[i] = st[(i + 397) % 624] ^ (y >> 1) ^ (0x9908B0DF if st[(i + 1) % 624] & 1 else 0)
        for y in st:
            y ^= y >> 11
            y ^= (y << 7) & 0x9D2C5680
            y ^= (y << 15) & 0xEFC60000
            out.append(y ^ (y >> 18))
    return out[:n]


if __name__ == "__main__":
    for n in ("", "x", "blocks.0.attn1.to_q.weight", "é"):
        assert words(n, 1500).tolist() == _words_plain(fnv1a(n), 1500), n
    assert _words_plain(42, 3) == [1608637542, 3421126067, 4083286876]
    print("x", fnv1a("x"), [float(v) for v in fill("x", (4,), 1.0, 0.0)])
