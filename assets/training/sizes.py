"""Sizes of clips: how many tokens each has, the flow shift that belongs to it, and the ones the model is judged at."""
from dataclasses import dataclass

# From so many tokens on, the shift of the noise levels. The more tokens show one thing, the less noise hides it: the
# shift grows as the square root of their number (SD3, arXiv 2403.03206, section 5.3.2), from 3 at 256 x 256 x 33.
SHIFTS = [(0, 3.), (3500, 4.5), (7500, 6.), (11000, 7.)]


@dataclass(frozen=True)
class Size:
    width: int
    height: int
    frames: int

    def __str__(self):
        return f"{self.width}x{self.height}x{self.frames}"

    @property
    def tokens(self):
        return tokens(self.frames, self.height, self.width)

    @property
    def shift(self):
        return shift(self.tokens)

    @property
    def pixels(self):
        return self.width * self.height * self.frames

    def how(self):
        """For Model.latents and what calls it."""
        return dict(width=self.width, height=self.height, frames=self.frames)


def tokens(frames, height, width):
    return ((frames - 1) // 4 + 1) * (height // 16) * (width // 16)


def shift(count):
    return [s for least, s in SHIFTS if count >= least][-1]


def at_once(pixels, most, budget):
    """How many clips of so many pixels go through at a time."""
    return max(1, min(most, budget // pixels))


# size: held-out captions in the judge's table, at once, whether free prompts are made too
JUDGED = {Size(256, 256, 33): (512, 16, True), Size(384, 384, 33): (128, 8, False), Size(512, 512, 33): (128, 4, True),
          Size(640, 384, 49): (128, 4, False), Size(320, 192, 81): (128, 8, False)}
TINY = {Size(64, 64, 9): (4, 2, True), Size(80, 48, 13): (2, 2, False)}  # to try the code
