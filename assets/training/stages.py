"""What each stage of train.py does in its own process; what it needs of earlier ones it reads from WORK."""
import json
import os
import random
import shutil
import time
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

import captions
import encoder as encoders
import export
import judge as judges
import sheet
import sprites
import team
import tokenizer
import turbo
import vae as autoencoder
from common import HERE, log, put, seed_all
from dit import CONFIG, TINY, Transformer
from sampling import Model
from train_dit import Trainer
from warm import warm
from world import World


class Stage:
    """ends: when the stage's time is over, by time.time()."""

    def __init__(self, args, ends, drawers):
        self.args, self.work, self.smoke, self.ends, self.drawers = args, Path(args.work), args.smoke, ends, drawers
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self.compiled = self.device == "cuda"
        self.made = {}

    def path(self, name):
        return self.work / name

    def there(self, name, start_name):
        """In WORK, or else in the published model to go on from."""
        path = self.path(name)
        return path if path.exists() or not self.args.start else Path(self.args.start) / start_name

    def left(self, after=0):
        """Seconds to train, with `after` seconds of work behind it."""
        seconds = self.ends - time.time()
        return max(.5 * seconds, seconds - after)

    def steps(self, most):
        """To try the code, so many steps are enough, unless a time is given."""
        return most if self.smoke and not self.args.until else None

    # ---- what stages need of earlier ones, made once ----------------------------------------------------------------
    def need(self, what):
        if what not in self.made:
            self.made[what] = getattr(self, "load_" + what)()
        return self.made[what]

    def load_world(self):
        return World(self.path("sprites.npz"), self.device)

    def load_spiece(self):
        import sentencepiece
        return sentencepiece.SentencePieceProcessor(str(self.there("tokenizer", "tokenizer") / "spiece.model"))

    def load_encoder(self):
        """-> encoder, heads."""
        e, heads = encoders.build(self.need("spiece").get_piece_size()).to(self.device), encoders.Heads().to(self.device)
        if not self.path("encoder.safetensors").exists():
            return export.read_encoder(self.args.start, self.device), heads
        state = load_file(self.path("encoder.safetensors"))
        e.load_state_dict({k[8:]: v.float() for k, v in state.items() if k.startswith("encoder.")}, strict=False)
        heads.load_state_dict({k[6:]: v.float() for k, v in state.items() if k.startswith("heads.")})
        return e, heads

    def load_vae(self):
        return autoencoder.wan.AutoencoderKLWan.from_pretrained(self.there("vae", "vae")).float()

    def load_judge(self):
        path = self.path("judge.safetensors")
        if not path.exists() and self.args.start and "judge" not in self.args.again:
            path = HERE / "judge.safetensors"
        return judges.Judge(self.device).load(path) if path.exists() else None

    def load_model(self):
        if self.path("dit.safetensors").exists() or not self.args.start:
            torch.manual_seed(1)
            dit = Transformer(TINY if self.smoke and not self.args.start else CONFIG).start().to(self.device)
            if self.path("dit.safetensors").exists():
                dit.load_state_dict({k: v.float() for k, v in load_file(self.path("dit.safetensors")).items()})
        else:
            dit = export.read_dit(self.args.start, self.device)
        return Model(self.need("spiece"), self.need("encoder")[0], dit, autoencoder.Codec(self.need("vae"), self.device))

    def load_frozen(self):
        """The trained model, to sample from."""
        model = self.need("model")
        model.dit.requires_grad_(False)
        if self.compiled:
            model.dit.compile_blocks()
        return model

    def load_lora(self):
        path = self.path("turbo.safetensors")
        if not path.exists() and self.args.start and not self.path("dit.safetensors").exists():  # it is for that transformer
            path = Path(self.args.start) / "transformer_turbo/pytorch_lora_weights.safetensors"
        return load_file(path) if path.exists() else None

    def load_student(self):
        """The transformer with the adapter merged: what it computes compiles to the same as without."""
        return self.need("lora") and turbo.merged(self.need("model").dit, self.need("lora")).requires_grad_(False)

    # ---- stages -----------------------------------------------------------------------------------------------------
    def sprites(self):
        put(self.path("sprites.npz"), sprites.main)

    def tokenizer(self):
        put(self.path("tokenizer"), lambda aside: tokenizer.train(aside, 2000 if self.smoke else 40000))

    def warm(self):
        os.nice(10)  # the stages beside it come first
        warm(self.args.what.split(","), self.need("spiece"), self.device, self.args.batch, self.smoke)

    def encoder(self):
        start = self.need("encoder") if self.path("encoder.safetensors").exists() else None
        seed = 21 + self.args.seed
        seed_all(seed)
        e, heads = encoders.train(self.need("spiece"), seed, self.device, self.left(), self.steps(2), self.smoke, start,
                                  pool=self.drawers)
        own = {k: v for k, v in e.state_dict().items() if k != "encoder.embed_tokens.weight"}  # tied to shared.weight
        state = {**{f"encoder.{k}": v for k, v in own.items()}, **{f"heads.{k}": v for k, v in heads.state_dict().items()}}
        put(self.path("encoder.safetensors"), lambda aside: save_file(export.half(state), aside))

    def vae(self):
        rng, start = seed_all(5), None
        if self.args.start_vae:
            start = autoencoder.wan.AutoencoderKLWan.from_pretrained(Path(self.args.start_vae) / "vae").float()
        made = autoencoder.train(self.need("world"), lambda n: [captions.sample(rng) for _ in range(n)], self.left(15),
                                 self.steps(2), self.smoke, start, *((4e-4, 5e-4) if start else ()))
        put(self.path("vae"), made.save_pretrained)

    def judge(self):
        j, seed = self.need("judge") or judges.Judge(self.device), 31 + self.args.seed
        seed_all(seed)
        j.train(self.need("world"), seed, self.left(10), self.steps(2), self.smoke, self.drawers)
        put(self.path("judge.safetensors"), j.save)
        log("judge on held-out renders:", judges.examine(j, self.need("world"), 2 if self.smoke else 512))

    def dit(self):
        """Goes on from dit.state when that is there: to the end of its plan, or, when it has been there, once more from
        --from. dit.json tells train.py how far it got."""
        seed_all(3 + self.args.seed)
        kept = self.path("dit.state")
        state = torch.load(kept, map_location=self.device) if kept.exists() else None
        trained = state["passed"] == 1 if state else self.path("dit.safetensors").exists() or self.args.start
        begin = getattr(self.args, "from") if trained else state["passed"] if state else 0.
        trainer = Trainer(self.need("model"), self.need("world"), 3 + self.args.seed, self.args.batch, trained, self.smoke,
                          self.compiled, self.drawers)
        if state:
            trainer.learner.load(state)
            log(f"dit goes on from {begin:.3f} of its plan, after {trainer.learner.step} steps")

        def save(learner, passed):
            export.save_dit(learner.best(), self.path("dit.safetensors"))
            put(kept, lambda aside: torch.save(dict(learner.state(), passed=passed), aside))
            put(self.path("dit.json"), lambda aside: aside.write_text(json.dumps(dict(step=learner.step, passed=passed))))

        trainer.run(self.left(), self.need("judge"), save, begin, self.steps(40))

    def turbo(self):
        student = turbo.train(self.need("frozen"), self.left(), 17 + self.args.seed, self.steps(2), self.args.batch, self.smoke,
                              self.compiled)
        if team.RANK == 0:
            put(self.path("turbo.safetensors"), lambda aside: save_file(turbo.state(student), aside))

    def export(self):
        model, folder = self.need("model"), self.path("part.model")
        shutil.rmtree(folder, ignore_errors=True)
        export.write(folder, self.there("tokenizer", "tokenizer"), model.encoder, model.dit, model.codec.vae, self.need("lora"),
                     turbo.STEPS)
        export.check(folder, model, self.need("student"))
        shutil.rmtree(self.path("model"), ignore_errors=True)
        folder.rename(self.path("model"))

    def report(self):
        """The judge's table, the autoencoder's quality, contact sheets; all ranks share the clips."""
        model, judge, world, student = (self.need(k) for k in ("frozen", "judge", "world", "student"))
        if student and self.compiled:
            student.compile_blocks()
        n, how = (4, dict(frames=9, height=64, width=64, steps=2, at_once=2)) if self.smoke else (512, {})
        few = {**how, "steps": turbo.STEPS, "guidance": 1., "dit": student}
        prompts, rows = sheet.PROMPTS[:n], {}

        def note(name, row):
            rows[name] = row
            log(name, row)
            if team.RANK == 0:
                put(self.path("table.json"), lambda aside: aside.write_text(json.dumps(rows, indent=1)))

        def draw(name, settings, prompts=prompts, columns=2):
            sheet.write(self.path(name + ".jpg"), model.clips(prompts, **settings), prompts, columns=columns)
            return name, "drawn"

        def across(name, height, width):
            with torch.compiler.set_stance("force_eager"):
                return draw(name, dict(how, height=height, width=width, at_once=6), prompts[:6], 1)

        def encoded():
            rng = random.Random(41)
            return "vae", autoencoder.quality(model.codec, world, lambda k: [captions.sample(rng, held=True) for _ in range(k)],
                                              1 if self.smoke else 64, 32 if self.smoke else 256)

        if student:
            note("turbo", judges.evaluate(judge, model, n, **few))
        note("model", judges.evaluate(judge, model, n, **how))
        jobs = [lambda: draw("sheet", how), encoded,
                lambda: across("sheet_wide", *((48, 80) if self.smoke else (192, 320))),
                lambda: ("renders after the vae", judges.examine(judge, world, 1 if self.smoke else 128, model.codec)),
                lambda: across("sheet_tall", *((80, 48) if self.smoke else (320, 192)))]
        if student:
            jobs.append(lambda: draw("sheet_turbo", few))
        for name, row in team.gather([job() for job in team.turns(jobs)]):
            note(name, row)
        if self.args.compare:
            other = export.read(self.args.compare, self.device)
            if self.compiled:
                other.dit.compile_blocks()
            note("compared", judges.evaluate(judge, other, max(1, n // 4), **how))


def run(args, ends, drawers):
    stage = Stage(args, ends, drawers)
    team.join(stage.device)
    getattr(stage, args.part)()
    team.leave()
