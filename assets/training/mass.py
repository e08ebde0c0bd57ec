"""How much of attention's mass a share of the tiles holds: the table of kept mass against density, by layer and head.

    python3 mass.py OUT.md [--model FOLDER] [--prompt TEXT] [--sizes 256x256x33,512x512x33] [--steps 30] [--at 3,15,27]
                    [--tile 64] [--branch prompt|negative] [--seed 0]

Tokens in raster order are cut into tiles of --tile queries and --tile keys. Each row of tiles keeps the tiles that hold
most of its softmax: no method that keeps as many tiles can keep more. The mass is the mean over rows and over the steps.
"keys" is the same for single keys a query, which bounds any method at all.
"""
import torch

import export
from qkv import arguments, checked, size_of, walk

DENSITIES = .02, .05, .1, .2, .3, .5


@torch.no_grad()
def kept(q, k, tile):
    """q, k [L, D] of a head -> mass kept at each density by the best tiles, and by the best keys."""
    n, columns = len(q), -(-len(q) // tile)
    pad, by_tile, by_key, rows = columns * tile - n, [], [], 0
    for i in range(0, n, tile):
        p = (q[i:i + tile].float() @ k.float().T * q.shape[1] ** -.5).softmax(-1)
        tiles = torch.nn.functional.pad(p, (0, pad)).view(len(p), columns, tile).sum((0, 2))
        for values, out, count in ((tiles[None], by_tile, columns), (p[::8], by_key, n)):
            sums = values.sort(-1, descending=True).values.cumsum(-1).sum(0)
            out.append(torch.stack([sums[max(1, round(d * count)) - 1] for d in DENSITIES])
                       * (1 if out is by_tile else len(p) / len(p[::8])))
        rows += len(p)
    return torch.stack([torch.stack(by_tile).sum(0), torch.stack(by_key).sum(0)]) / rows


def table(name, masses):
    """masses [layers, heads, 2, densities] -> lines of Markdown."""
    head = " | ".join(f"{d:g}" for d in DENSITIES)
    lines = [f"## {name}", "", f"| layer | head | {head} | keys {DENSITIES[1]:g} | keys {DENSITIES[2]:g} |",
             "|---" * (len(DENSITIES) + 4) + "|"]
    row = lambda a, b, m: f"| {a} | {b} | " + " | ".join(f"{v:.3f}" for v in [*m[0], m[1][1], m[1][2]]) + " |"
    for i, layer in enumerate(masses):
        lines += [row(i, j, m) for j, m in enumerate(layer)]
    return lines + [row("all", "all", masses.mean((0, 1))), ""]


def main():
    p = arguments(__doc__)
    p.set_defaults(at=[3, 15, 27])
    p.add_argument("--sizes", type=lambda text: [size_of(s) for s in text.split(",")], default="256x256x33,512x512x33")
    p.add_argument("--tile", type=int, default=64)
    a, lines = p.parse_args(), []
    model = export.read(a.model, "cuda" if torch.cuda.is_available() else "cpu")
    checked(p, a, model, [0])
    for size in a.sizes:
        sums = torch.zeros(len(model.dit.blocks), model.dit.blocks[0].attn1.heads, 2, len(DENSITIES))

        def see(step, layer, q, k, v):
            for j in range(q.shape[1]):
                sums[layer, j] += kept(q[0, j], k[0, j], a.tile).cpu()

        walk(model, a.prompt, size, a.steps, a.at, a.branch, see, a.seed)
        lines += table(f"{size}: {size.tokens} tokens, tiles of {a.tile}, steps {','.join(map(str, a.at))} of {a.steps}, "
                       f"\"{a.prompt}\"", sums / len(a.at))
    with open(a.out, "w") as file:
        file.write("# Kept mass against density\n\n" + "\n".join(lines))
    print(f"{a.out}: {len(a.sizes)} sizes")


if __name__ == "__main__":
    main()
