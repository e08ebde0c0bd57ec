"""Cuts the subjects out of the Noto Color Emoji font: sprites.npz, uint8 RGBA [S, 128, 128, 4].

    python3 sprites.py sprites.npz

Every glyph is drawn once at the font's own bitmap size (109), cropped, and scaled so that its longer side is 116 of
128 pixels. The order is that of subjects.txt; the rest of the code knows a subject by its index there.
"""
import sys
from pathlib import Path

import numpy as np

FONT = "/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf"  # Debian package fonts-noto-color-emoji
SIZE, LONG_SIDE = 128, 116  # a border of 6 keeps bilinear lookups off the picture's edge


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


def draw(glyph):
    from PIL import Image, ImageDraw, ImageFont

    font = ImageFont.truetype(FONT, 109)  # the one size the bitmap font has
    canvas = Image.new("RGBA", (160, 160), (0, 0, 0, 0))
    ImageDraw.Draw(canvas).text((10, 10), glyph, font=font, embedded_color=True)
    box = canvas.getbbox()
    if not box or box[2] - box[0] < 30:
        raise SystemExit(f"sprites.py: the font has no picture for {glyph!r}")
    cut = canvas.crop(box)
    scale = LONG_SIDE / max(cut.size)
    cut = cut.resize([max(1, round(side * scale)) for side in cut.size], Image.LANCZOS)
    sprite = Image.new("RGBA", (SIZE, SIZE), (0, 0, 0, 0))
    sprite.paste(cut, ((SIZE - cut.size[0]) // 2, (SIZE - cut.size[1]) // 2))
    return np.array(sprite)


def main(path):
    subjects = read_subjects()
    rgba = np.stack([draw(s["glyph"]) for s in subjects])
    np.savez_compressed(path, rgba=rgba, names=np.array([s["name"] for s in subjects]))
    print(f"{path}: {rgba.shape[0]} subjects")


if __name__ == "__main__":
    main(sys.argv[1])
