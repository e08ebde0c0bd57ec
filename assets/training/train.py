"""From nothing to the embedded model, on one GPU:

    python3 train.py WORK

Stages, each skipped when its result lies in WORK already: sprites, tokenizer, encoder, vae, judge, dit, turbo, export,
report. --seconds gives a stage its time (they are shares of a budget, so a slower GPU trains less, not longer);
--only runs some stages; --again trains some further from what lies in WORK, --start MODEL from a published model (the
optimizers start anew, the transformer's at a lower rate); --smoke walks all of it at tiny size on a CPU.
"""
import argparse
import json
import os
import random
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

import captions
import common
import encoder as encoders
import export
import judge as judges
import sheet
import sprites
import tokenizer
import turbo
import vae as autoencoder
from common import log, seed_all
from dit import Transformer
from sampling import Model
from train_dit import Trainer
from world import World

SECONDS = dict(encoder=90, vae=900, judge=120, dit=900, turbo=240)  # the vae 240 from a published one
STAGES = ["sprites", "tokenizer", "encoder", "vae", "judge", "dit", "turbo", "export", "report"]


class Run:
    def __init__(self, args):
        self.args, self.work, self.smoke = args, Path(args.work), args.smoke
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self.workers = 0 if self.smoke else min(6, (os.cpu_count() or 1) // 2)
        self.work.mkdir(parents=True, exist_ok=True)
        self.made = {}

    def path(self, name):
        return self.work / name

    def seconds(self, stage):
        return self.args.seconds.get(stage, SECONDS.get(stage))

    # ---- what later stages need of earlier ones, made once ----------------------------------------------------------
    def need(self, what):
        if what not in self.made:
            self.made[what] = getattr(self, "load_" + what)()
        return self.made[what]

    def load_world(self):
        return World(self.path("sprites.npz"), self.device)

    def load_spiece(self):
        import sentencepiece
        return sentencepiece.SentencePieceProcessor(str(self.path("tokenizer/spiece.model")))

    def load_encoder(self):
        """-> encoder, heads."""
        e, heads = encoders.build(self.need("spiece").get_piece_size()).to(self.device), encoders.Heads().to(self.device)
        state = load_file(self.path("encoder.safetensors"))
        e.load_state_dict({k[8:]: v.float() for k, v in state.items() if k.startswith("encoder.")}, strict=False)
        heads.load_state_dict({k[6:]: v.float() for k, v in state.items() if k.startswith("heads.")})
        return e, heads

    def save_encoder(self, name, e, heads):
        own = {k: v for k, v in e.state_dict().items() if k != "encoder.embed_tokens.weight"}  # tied to shared.weight
        save_file(export.half({**{f"encoder.{k}": v for k, v in own.items()},
                               **{f"heads.{k}": v for k, v in heads.state_dict().items()}}), self.path(name))

    def load_vae(self):
        return autoencoder.wan.AutoencoderKLWan.from_pretrained(self.path("vae")).float()

    def load_judge(self):
        path = self.path("judge.safetensors")
        return judges.Judge(self.device).load(path) if path.exists() else None

    def load_model(self):
        dit = Transformer().to(self.device)
        if self.path("dit.safetensors").exists():
            dit.load_state_dict({k: v.float() for k, v in load_file(self.path("dit.safetensors")).items()})
        elif self.args.start:
            dit = export.read_dit(self.args.start, self.device)
        else:
            torch.manual_seed(1)
            dit = Transformer().start().to(self.device)
        return Model(self.need("spiece"), self.need("encoder")[0], dit,
                     autoencoder.Codec(self.need("vae"), self.device))

    # ---- stages -----------------------------------------------------------------------------------------------------
    def sprites(self):
        if not self.path("sprites.npz").exists():
            sprites.main(self.path("sprites.npz"))

    def tokenizer(self):
        if not self.path("tokenizer/tokenizer.json").exists():
            tokenizer.train(self.path("tokenizer"), 2000 if self.smoke else 40000)

    def encoder(self):
        there = self.path("encoder.safetensors").exists()
        if not there or "encoder" in self.args.again:
            start = self.need("encoder") if there else None
            seed_all(21 + self.args.seed)
            e, heads = encoders.train(self.need("spiece"), 21 + self.args.seed, self.device,
                                      self.seconds("encoder"), self.smoke, start, workers=self.workers)
            self.save_encoder("encoder.safetensors", e, heads)
            self.made["encoder"] = e, heads

    def vae(self):
        if self.path("vae").exists():
            return
        rng, start = seed_all(5), None
        if self.args.start:
            start = autoencoder.wan.AutoencoderKLWan.from_pretrained(Path(self.args.start) / "vae").float()
        made = autoencoder.train(self.need("world"), lambda n: [captions.sample(rng) for _ in range(n)],
                                 self.seconds("vae"), self.smoke, start, *((4e-4, 5e-4) if start else ()))
        made.save_pretrained(self.path("vae"))

    def judge(self):
        if not self.path("judge.safetensors").exists() or "judge" in self.args.again:
            j = self.need("judge") or judges.Judge(self.device)
            seed_all(31 + self.args.seed)
            j.train(self.need("world"), 31 + self.args.seed, self.seconds("judge"), self.smoke, self.workers)
            j.save(self.path("judge.safetensors"))
            self.made["judge"] = j
        log("judge on held-out renders:", judges.examine(self.need("judge"), self.need("world"), 16 if self.smoke else 512))

    def dit(self):
        if self.path("dit.safetensors").exists() and "dit" not in self.args.again:
            return
        seed_all(3 + self.args.seed)
        model = self.need("model")
        fresh = not (self.args.start or self.path("dit.safetensors").exists())

        def save():
            export.save_dit(model.dit, self.path("dit.safetensors"))
            self.write_log()

        trainer = Trainer(model, self.need("world"), 3 + self.args.seed, self.smoke, fresh, self.device == "cuda")
        trainer.run(self.seconds("dit"), self.need("judge"), save, max_steps=16 if self.smoke else None)
        save()

    def turbo(self):
        path = self.path("turbo.safetensors")
        if not path.exists():
            model = self.need("model")
            model.dit.requires_grad_(False)
            student = turbo.train(model, self.seconds("turbo"), self.smoke, compiled=self.device == "cuda")
            self.made["student"] = student
            save_file(turbo.state(student), path)

    def load_student(self):
        student = turbo.student_of(self.need("model").dit).to(self.device)
        return turbo.load(student, load_file(self.path("turbo.safetensors"))).eval()

    def export(self):
        model = self.need("model")
        lora = load_file(self.path("turbo.safetensors")) if self.path("turbo.safetensors").exists() else None
        export.write(self.path("model"), self.path("tokenizer"), model.encoder, model.dit, model.codec.vae, lora, turbo.STEPS)

    def report(self):
        """The judge's table, the autoencoder's quality, contact sheets."""
        model, judge, world = self.need("model"), self.need("judge"), self.need("world")
        n, how = (4, dict(frames=9, height=64, width=64, steps=2, at_once=4)) if self.smoke else (512, {})
        rows = {}

        def row(name, made):
            rows[name] = made
            log(name, made)
            self.path("table.json").write_text(json.dumps(rows, indent=1))

        prompts = sheet.PROMPTS[:n]
        tiny = {k: v for k, v in how.items() if k != "steps"}
        sheet.write(self.path("sheet.jpg"), model.clips(prompts, **how), prompts, columns=2)
        log("sheet written")
        if self.path("turbo.safetensors").exists():
            few = dict(tiny, steps=turbo.STEPS, guidance=1., dit=self.need("student"))
            sheet.write(self.path("sheet_turbo.jpg"), model.clips(prompts, **few), prompts, columns=2)
            row("turbo", judges.evaluate(judge, model, n, **few))
        row("model", judges.evaluate(judge, model, n, **how))
        if not self.smoke:
            rng = random.Random(41)
            row("vae", autoencoder.quality(model.codec, world, lambda k: [captions.sample(rng, held=True) for _ in range(k)], 64))
            row("renders after the vae", judges.examine(judge, world, 128, model.codec))
            for name, size in (("wide", (192, 320)), ("tall", (320, 192))):
                with torch.compiler.set_stance("force_eager"):
                    sheet.write(self.path(f"sheet_{name}.jpg"), model.clips(prompts[:6], height=size[0], width=size[1], at_once=6), prompts)
        if self.args.compare:
            other = export.read(self.args.compare, self.device)
            if self.device == "cuda":
                for block in other.dit.blocks:
                    block.compile(dynamic=False)
            row("compared", judges.evaluate(judge, other, n // 4, **how))

    def write_log(self):
        with open(self.path("log.txt"), "a") as f:
            f.writelines(line + "\n" for line in common.LOG)
        common.LOG.clear()


def seconds_of(text):
    return {k: float(v) for k, v in (item.split("=") for item in text.split(","))}


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("work", help="folder for all results")
    p.add_argument("--only", type=lambda s: s.split(","), default=STAGES, help="stages, with commas")
    p.add_argument("--seconds", type=seconds_of, default={}, help="dit=600,turbo=200")
    p.add_argument("--start", help="a published model folder to go on from")
    p.add_argument("--again", type=lambda s: s.split(","), default=[], help="encoder, judge, dit: train what is there further")
    p.add_argument("--seed", type=int, default=0, help="another one for every --again")
    p.add_argument("--compare", help="a published model folder to judge beside the new one")
    p.add_argument("--smoke", action="store_true")
    run = Run(p.parse_args())
    for stage in STAGES:
        if stage in run.args.only:
            log("stage", stage)
            getattr(run, stage)()
            run.write_log()


if __name__ == "__main__":
    main()
