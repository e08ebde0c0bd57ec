"""Draws the subjects: sprites.npz, which holds a WebP picture of 352 x 352 pixels, RGBA, for each.

    python3 sprites.py sprites.npz [FOLDER of Noto Emoji's drawings, emoji_u1f415.svg and so on]

From the drawings (by resvg) a subject is crisp at any size the world shows it at, up to some 350 pixels. Without them it
is cut out of the font, whose bitmaps are 109 pixels high, and is soft beyond that. Cropped and scaled so that its longer
side is 319 of 352 pixels. The order is that of subjects.txt; the rest of the code knows a subject by its index there.
"""
import io
import sys
from pathlib import Path

import numpy as np

FONT = "/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf"  # Debian package fonts-noto-color-emoji
SIZE, LONG_SIDE = 352, 319  # a border keeps bilinear lookups off the picture's edge


def read_subjects(path=Path(__file__).with_name("subjects.txt")):
    """[{name, glyph, kind, words, plural}] in the order of the file."""
    subjects = []
    for line in path.read_text().splitlines():
        if not line or line.startswith("#"):
            continue
        name, glyph, kind, words, plural = (line.split("|") + [""])[:5]
        subjects.append(dict(name=name, glyph=glyph, kind=kind, words=words.split(","),
                             plural=plural or pluralize(name)))
    return subjects


def pluralize(noun):
    if noun.endswith(("s", "x", "ch", "sh")) or noun in ("tomato", "potato"):
        return noun + "es"
    if noun.endswith("y") and noun[-2] not in "aeiou":
        return noun[:-1] + "ies"
    return noun + "s"


def from_drawing(glyph, folder):
    import resvg_py
    from PIL import Image

    code = "_".join(f"{ord(c):04x}" for c in glyph if ord(c) != 0xfe0f)
    path = Path(folder) / f"emoji_u{code}.svg"
    if not path.exists():
        raise SystemExit(f"sprites.py: no {path} for {glyph!r}")
    png = resvg_py.svg_to_bytes(svg_path=str(path), width=1024, height=1024, skip_system_fonts=True)
    return Image.open(io.BytesIO(bytes(png))).convert("RGBA")


def from_font(glyph):
    from PIL import Image, ImageDraw, ImageFont

    font = ImageFont.truetype(FONT, 109)  # the one size the bitmap font has
    canvas = Image.new("RGBA", (160, 160), (0, 0, 0, 0))
    ImageDraw.Draw(canvas).text((10, 10), glyph, font=font, embedded_color=True)
    return canvas


def draw(glyph, drawings=None):
    from PIL import Image

    canvas = from_drawing(glyph, drawings) if drawings else from_font(glyph)
    box = canvas.getbbox()
    if not box or box[2] - box[0] < 30:
        raise SystemExit(f"sprites.py: the font has no picture for {glyph!r}")
    cut = canvas.crop(box).convert("RGBa")  # premultiplied: no dark rim from resizing
    scale = LONG_SIDE / max(cut.size)
    cut = cut.resize([max(1, round(side * scale)) for side in cut.size], Image.LANCZOS).convert("RGBA")
    sprite = Image.new("RGBA", (SIZE, SIZE), (0, 0, 0, 0))
    sprite.paste(cut, ((SIZE - cut.size[0]) // 2, (SIZE - cut.size[1]) // 2))
    return sprite


def load(path):
    """-> uint8 [S, SIZE, SIZE, 4], colours not premultiplied."""
    from PIL import Image

    z = np.load(path)
    ends = np.cumsum(z["sizes"])
    return np.stack([np.asarray(Image.open(io.BytesIO(z["webp"][end - size:end].tobytes())).convert("RGBA"))
                     for end, size in zip(ends, z["sizes"])])


def main(path, drawings=None):
    subjects, parts = read_subjects(), []
    for s in subjects:
        file = io.BytesIO()
        draw(s["glyph"], drawings).save(file, "WEBP", quality=85, alpha_quality=95, method=6)
        parts.append(np.frombuffer(file.getvalue(), np.uint8))
    with open(path, "wb") as file:
        np.savez(file, webp=np.concatenate(parts), sizes=np.array([len(p) for p in parts]),
                 names=np.array([s["name"] for s in subjects]))
    print(f"{path}: {len(parts)} subjects")


if __name__ == "__main__":
    main(*sys.argv[1:3])
