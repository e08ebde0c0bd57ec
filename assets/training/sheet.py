"""Contact sheets: a row a clip, some frames of it side by side, the prompt beneath."""
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


def write(path, videos, prompts=None, frames=5, side=96, columns=1, quality=82):
    """videos: an iterable of [n, 3, T, H, W]. JPEG or PNG by the name."""
    from PIL import Image, ImageDraw
    strips = []
    for video in videos:
        for clip in video:
            some = clip[:, torch.linspace(0, clip.shape[1] - 1, frames).round().long()].transpose(0, 1)
            some = F.interpolate(some, (side, round(side * some.shape[3] / some.shape[2])), mode="area")
            strips.append(((torch.cat(list(some), 2).clamp(-1, 1) + 1) * 127.5).round().byte().permute(1, 2, 0).cpu().numpy())
    line = 15 if prompts else 0
    wide, tall = max(s.shape[1] for s in strips) + 6, max(s.shape[0] for s in strips) + line + 4
    rows = -(-len(strips) // columns)
    sheet = Image.new("RGB", (wide * columns, tall * rows), "white")
    for i, strip in enumerate(strips):
        x, y = i % columns * wide + 3, i // columns * tall
        sheet.paste(Image.fromarray(strip), (x, y + line))
        if prompts:
            ImageDraw.Draw(sheet).text((x, y + 2), prompts[i], fill="black")
    sheet.save(path, **(dict(quality=quality) if str(path).endswith("jpg") else dict(optimize=True)))
