"""Writes the model as a diffusers WanPipeline folder, and reads such a folder back as the training code's objects."""
import json
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from common import log, put
from dit import ROWS, Transformer
from sampling import SCHEDULER, Model
from sizes import SHIFTS
from vae import Codec, wan

MADE_WITH = "0.42.1"  # the diffusers whose layout this is
INI = """# What this model makes when nobody says otherwise. It was trained at many sizes; larger clips want other defaults.
[defaults]
width = 256
height = 256
frames = 33
fps = 16
steps = 30
guidance_scale = 4
flow_shift = {shifts}
negative_prompt = ""
"""
TURBO_INI = """[turbo]
steps = {steps}
guidance_scale = 1
"""


def write_json(path, **what):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(what, indent=2, sort_keys=True) + "\n")


def half(state):
    return {k: v.detach().to(torch.bfloat16).cpu().contiguous() for k, v in state.items()}


def save_dit(state, path):
    path.parent.mkdir(parents=True, exist_ok=True)
    put(path, lambda aside: save_file(half(state), aside, metadata=dict(format="pt")))


def write(folder, tokenizer, encoder, dit, vae, lora=None, turbo_steps=4):
    import shutil
    folder = Path(folder)
    pair = lambda library, name: [library, name]
    write_json(folder / "model_index.json", _class_name="WanPipeline", _diffusers_version=MADE_WITH, boundary_ratio=None,
               expand_timesteps=False, scheduler=pair("diffusers", "UniPCMultistepScheduler"),
               text_encoder=pair("transformers", "UMT5EncoderModel"),
               tokenizer=pair("transformers", "PreTrainedTokenizerFast"),
               transformer=pair("diffusers", "WanTransformer3DModel"), transformer_2=pair(None, None),
               vae=pair("diffusers", "AutoencoderKLWan"))
    from diffusers import UniPCMultistepScheduler
    UniPCMultistepScheduler(**SCHEDULER, flow_shift=SHIFTS[0][1]).save_pretrained(folder / "scheduler")
    shutil.copytree(tokenizer, folder / "tokenizer", dirs_exist_ok=True)
    save_dit(dit.state_dict(), folder / "transformer/diffusion_pytorch_model.safetensors")
    write_json(folder / "transformer/config.json", _class_name="WanTransformer3DModel", _diffusers_version=MADE_WITH,
               **dit.config)
    encoder.to(torch.bfloat16).save_pretrained(folder / "text_encoder")
    encoder.float()
    vae.to(torch.bfloat16).save_pretrained(folder / "vae")
    vae.float()
    for config in folder.glob("*/config.json"):  # no paths of the machine that trained it
        kept = {k: v for k, v in json.loads(config.read_text()).items() if k != "_name_or_path"}
        write_json(config, **kept)
    if lora:
        (folder / "transformer_turbo").mkdir(exist_ok=True)
        save_file(lora, folder / "transformer_turbo/pytorch_lora_weights.safetensors", metadata=dict(format="pt"))
    ini = INI.format(shifts=", ".join(f"{s:g}@{n}" if n else f"{s:g}" for n, s in SHIFTS))
    (folder / "ditgen.ini").write_text(ini + (TURBO_INI.format(steps=turbo_steps) if lora else ""))


@torch.no_grad()
def check(folder, model, student=None):
    """The folder as diffusers reads it: the same ids and velocities as here, within float rounding, the adapter too."""
    from diffusers import WanPipeline
    pipe, prompt = WanPipeline.from_pretrained(folder, dtype=torch.float32), "A dog runs left, 2 cats in the rain!"
    ids = pipe.tokenizer(prompt, return_tensors="pt").input_ids
    if ids[0].tolist() != [*model.spiece.encode(prompt), 1]:
        raise SystemExit(f"export: tokenizer.json reads {prompt!r} otherwise than spiece.model")
    x, sigma = torch.randn(1, 16, 3, 8, 12, generator=torch.Generator().manual_seed(1)), .7
    rows = torch.nn.functional.pad(pipe.text_encoder(ids).last_hidden_state, (0, 0, 0, ROWS - ids.shape[1]))

    def compare(name, dit):
        here = model.velocity(x, sigma, model.text([prompt]), dit)
        there = pipe.transformer(x, torch.tensor([1000 * sigma]), rows, return_dict=False)[0]
        apart = ((here - there).abs().max() / there.abs().max()).item()
        log(f"export: velocity of {name} against diffusers: {apart:.1e} of the largest")
        if not apart < 1e-4:
            raise SystemExit(f"export: {name} differs from what diffusers computes")

    compare("transformer", model.dit)
    if student:
        pipe.load_lora_weights(Path(folder) / "transformer_turbo")
        compare("transformer_turbo", student)


def config_of(folder):
    config = json.loads((Path(folder) / "transformer/config.json").read_text())
    return {k: v for k, v in config.items() if k[0] != "_"}


def read_dit(folder, device):
    dit = Transformer(config_of(folder))
    path = Path(folder) / "transformer/diffusion_pytorch_model.safetensors"
    dit.load_state_dict({k: v.float() for k, v in load_file(path).items()})
    return dit.to(device)


def read_encoder(folder, device):
    from transformers import UMT5EncoderModel
    return UMT5EncoderModel.from_pretrained(Path(folder) / "text_encoder").float().to(device)


def read(folder, device):
    """-> Model to sample from."""
    import sentencepiece
    spiece = sentencepiece.SentencePieceProcessor(str(Path(folder) / "tokenizer/spiece.model"))
    vae = wan.AutoencoderKLWan.from_pretrained(Path(folder) / "vae").float()
    dit = read_dit(folder, device).requires_grad_(False)
    return Model(spiece, read_encoder(folder, device), dit, Codec(vae, device))
