"""Contact sheets: a row a clip, some frames of it side by side, the prompt above."""
import torch
import torch.nn.functional as F

PROMPTS = """a cat jumps on a green meadow|a rocket flies up in outer space|a big shark swims left underwater
a red heart beats like a heart on a plain pink background|a dog runs to the right and a butterfly circles around in a field
a snowman stays still in the falling snow|a dragon flies in circles at sunset|a huge panda spins clockwise on a yellow background
A soccer ball rolling to the right on the grass|two ducks in the rain|a ship sways from side to side at sea
an owl sitting at night under the stars|a camel walking to the left in the desert|a fire truck drives right on a grey background
a pumpkin bounces up and down at night|a flying saucer zigzags in space|an ice cream shrinks in front of a blue wall
a whale rises in the deep sea|a balloon flies up and to the right in a blue sky|a robot and an alien dance in outer space
a tiny turtle moves down underwater|a lion grows bigger at sunset|a hamburger rotates, teal background
there is a unicorn leaping in the snow, cinematic""".replace("\n", "|").split("|")


LARGE = ["a big shark swims left underwater", "a dragon flies in circles at sunset",
         "a dog runs to the right and a butterfly circles around in a field", "a huge panda spins clockwise on a yellow background"]


def strips_of(videos, frames, side):
    """[n, 3, T, H, W] -> a picture of some frames side by side for each."""
    for video in videos:
        for clip in video:
            some = clip[:, torch.linspace(0, clip.shape[1] - 1, min(frames, clip.shape[1])).round().long()].transpose(0, 1)
            some = F.interpolate(some, (side, round(side * some.shape[3] / some.shape[2])), mode="area")
            yield ((torch.cat(list(some), 2).clamp(-1, 1) + 1) * 127.5).round().byte().permute(1, 2, 0).cpu().numpy()


def write(path, groups, frames=5, quality=82):
    """groups, one below the other: (iterable of [n, 3, T, H, W], prompts, height of a frame, columns). JPEG or PNG by name."""
    from PIL import Image, ImageDraw
    line, parts = 15, []
    for videos, prompts, side, columns in groups:
        strips = list(strips_of(videos, frames, side))
        wide, tall = max(s.shape[1] for s in strips) + 6, max(s.shape[0] for s in strips) + line + 4
        part = Image.new("RGB", (wide * columns, tall * -(-len(strips) // columns)), "white")
        for i, strip in enumerate(strips):
            x, y = i % columns * wide + 3, i // columns * tall
            part.paste(Image.fromarray(strip), (x, y + line))
            ImageDraw.Draw(part).text((x, y + 2), prompts[i], fill="black")
        parts.append(part)
    sheet = Image.new("RGB", (max(p.size[0] for p in parts), sum(p.size[1] for p in parts)), "white")
    y = 0
    for part in parts:
        sheet.paste(part, (0, y))
        y += part.size[1]
    sheet.save(path, **(dict(quality=quality) if str(path).endswith("jpg") else dict(optimize=True)))
