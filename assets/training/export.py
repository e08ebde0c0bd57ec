"""Writes the model as a diffusers WanPipeline folder, and reads such a folder back as the training code's objects."""
import json
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from dit import CONFIG, Transformer
from sampling import SCHEDULER, Model
from vae import Codec, wan

MADE_WITH = "0.42.1"  # the diffusers whose layout this is
INI = """# What this model makes when nobody says otherwise: what it was trained at.
[defaults]
width = 256
height = 256
frames = 33
fps = 16
steps = 30
guidance_scale = 4
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


def save_dit(dit, path):
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(half(dit.state_dict()), path, metadata=dict(format="pt"))


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
    UniPCMultistepScheduler(**SCHEDULER).save_pretrained(folder / "scheduler")
    shutil.copytree(tokenizer, folder / "tokenizer", dirs_exist_ok=True)
    save_dit(dit, folder / "transformer/diffusion_pytorch_model.safetensors")
    write_json(folder / "transformer/config.json", _class_name="WanTransformer3DModel", _diffusers_version=MADE_WITH, **CONFIG)
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
    (folder / "ditgen.ini").write_text(INI + (TURBO_INI.format(steps=turbo_steps) if lora else ""))


def read_dit(folder, device):
    dit = Transformer().to(device)
    dit.load_state_dict({k: v.float() for k, v in load_file(
        Path(folder) / "transformer/diffusion_pytorch_model.safetensors").items()})
    return dit


def read(folder, device):
    """-> Model, ready to sample from or to train on."""
    import sentencepiece
    from transformers import UMT5EncoderModel
    folder = Path(folder)
    spiece = sentencepiece.SentencePieceProcessor(str(folder / "tokenizer/spiece.model"))
    encoder = UMT5EncoderModel.from_pretrained(folder / "text_encoder").float().to(device)
    vae = wan.AutoencoderKLWan.from_pretrained(folder / "vae").float()
    return Model(spiece, encoder, read_dit(folder, device), Codec(vae, device))
