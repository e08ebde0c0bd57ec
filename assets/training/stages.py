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
import rim
import sheet
import sizes
import sprites
import team
import tokenizer
import turbo
import vae as autoencoder
from common import HERE, log, put, seed_all
from dit import CONFIG, KERNEL, TINY, Transformer
from sampling import Model
from train_dit import GENTLE, Trainer
from warm import chosen, warm
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
        if not path.exists() and self.args.start:
            path = HERE / "judge.safetensors"
        return judges.Judge(self.device).load(path) if path.exists() else None

    def load_model(self):
        KERNEL["name"] = chosen(self.path("attention.txt"))
        if self.path("dit.safetensors").exists() or not self.args.start:
            torch.manual_seed(1)
            config = export.config_of(self.args.start) if self.args.start else TINY if self.smoke else CONFIG
            dit = Transformer(config).start().to(self.device)
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
        put(self.path("sprites.npz"), lambda aside: sprites.main(aside, self.args.drawings))

    def tokenizer(self):
        put(self.path("tokenizer"), lambda aside: tokenizer.train(aside, 2000 if self.smoke else 40000))

    def warm(self):
        os.nice(10)  # the stages beside it come first
        warm(self.args.what.split(","), self.need("spiece"), self.device, self.args.batch, self.path("attention.txt"), self.smoke)

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
        there, seed = self.need("judge"), 31 + self.args.seed
        j = there or judges.Judge(self.device)
        seed_all(seed)
        j.train(self.need("world"), seed, self.left(12), self.steps(2), self.smoke, self.drawers, 1e-3 if there else 2e-3)
        put(self.path("judge.safetensors"), j.save)
        for size in self.judged():
            log(f"judge on held-out renders of {size}:", judges.examine(j, self.need("world"), size, 2 if self.smoke else 128))

    def judged(self):
        return sizes.TINY if self.smoke else sizes.JUDGED

    def dit(self):
        """Goes on from dit.state when that is there, from the averaged weights and dit.json when only they were kept: to the
        end of its plan, or, when it has been there, once more from --from. dit.json tells train.py how far it got."""
        seed_all(3 + self.args.seed)
        kept, told, there = self.path("dit.state"), self.path("dit.json"), self.path("dit.safetensors").exists()
        state = torch.load(kept, map_location=self.device) if kept.exists() else None
        passed = state["passed"] if state else json.loads(told.read_text())["passed"] if told.exists() and there else None
        trained = passed == 1 if passed is not None else there or self.args.start
        first = GENTLE if getattr(self.args, "from") is None else getattr(self.args, "from")
        begin = first if trained else passed or 0.
        gentle = bool(trained or self.args.start)
        trainer = Trainer(self.need("model"), self.need("world"), 3 + self.args.seed, self.args.batch, gentle, self.smoke,
                          self.compiled, self.drawers)
        if state:
            trainer.learner.load(state)
        if begin:
            log(f"dit goes on from {begin:.3f} of its plan, after {trainer.learner.step} steps")

        def save(learner, passed):
            export.save_dit(learner.best(), self.path("dit.safetensors"))
            put(kept, lambda aside: torch.save(dict(learner.state(), passed=passed), aside))
            put(told, lambda aside: aside.write_text(json.dumps(dict(step=learner.step, passed=passed))))

        trainer.run(self.left(), self.need("judge"), save, begin, self.steps(40))

    def turbo(self):
        """Goes on from the adapter in WORK, or from the published one: the transformer is not far from its own."""
        path, first = self.path("turbo.safetensors"), None
        if self.args.start:
            first = Path(self.args.start) / "transformer_turbo/pytorch_lora_weights.safetensors"
        first = path if path.exists() else first if first and first.exists() else None
        turbo.train(self.need("frozen"), self.left(), 17 + self.args.seed, self.steps(4), self.args.batch, self.smoke,
                    self.compiled, load_file(first) if first else None,
                    lambda student: put(path, lambda aside: save_file(turbo.state(student), aside)))

    def export(self):
        model, folder = self.need("model"), self.path("part.model")
        shutil.rmtree(folder, ignore_errors=True)
        export.write(folder, self.there("tokenizer", "tokenizer"), model.encoder, model.dit, model.codec.vae, self.need("lora"),
                     turbo.STEPS)
        export.check(folder, model, self.need("student"))
        shutil.rmtree(self.path("model"), ignore_errors=True)
        folder.rename(self.path("model"))

    def report(self):
        """The judge's table at every size, first by a quarter of the clips; contact sheets, the autoencoder, the rim of what
        moves; then all clips. All ranks share them. What is there when time runs out is in table.json."""
        model, judge, world, student = (self.need(k) for k in ("frozen", "judge", "world", "student"))
        if student and self.compiled:
            student.compile_blocks()
        rows = {}

        def note(name, row):
            rows[name] = row
            log(name, row)
            if team.RANK == 0:
                put(self.path("table.json"), lambda aside: aside.write_text(json.dumps(rows, indent=1)))

        few = dict(steps=turbo.STEPS, guidance=1., dit=student)
        how = dict(steps=2) if self.smoke else {}
        exams = {f"{name} {size}": judges.Exam(judge, model, size, *row, 4 if self.smoke else 100, **settings)
                 for name, settings in (("model", how), ("turbo", few)) if name == "model" or student
                 for size, row in self.judged().items()}
        for share in (.25, 1.):
            for name, exam in exams.items():
                note(name, exam.go(share))
            if share < 1:
                self.draw(note, model, student, how, few)
                self.measure(note, model, judge, world)
        if self.args.compare:
            other = export.read(self.args.compare, self.device)
            if self.compiled:
                other.dit.compile_blocks()
            for size, row in self.judged().items():
                note(f"compared {size}", judges.Exam(judge, other, size, max(1, row[0] // 4), *row[1:], 4 if self.smoke else 100,
                                                     **how).go(1.))
                note(f"rim compared {size}", rim.measure(other, world, size, 1 if self.smoke else 8))

    def measure(self, note, model, judge, world):
        """What needs no table: dealt out among ranks, a job each."""
        def encoded(size):
            rng, n = random.Random(41), 1 if self.smoke else 64 if size.pixels < 3e6 else 24
            return f"vae {size}", autoencoder.quality(model.codec, world, lambda k: [captions.sample(rng, held=True)
                                                                                     for _ in range(k)], n, size)

        def renders(size, codec=None):
            return f"renders {'after the vae ' if codec else ''}{size}", judges.examine(judge, world, size,
                                                                                      1 if self.smoke else 32, codec)

        def rims(size):
            with torch.compiler.set_stance("force_eager"):
                return f"rim {size}", rim.measure(model, world, size, 1 if self.smoke else 12)

        jobs = [(job, size) for job in (encoded, rims) for size in self.judged()]
        self.deal(note, jobs + [(renders, size, model.codec) for size in self.judged()])

    def deal(self, note, jobs):
        """One that fails says so in the table and costs the others nothing."""
        def tried(job, *what):
            try:
                return job(*what)
            except Exception as error:
                return f"failed {job.__name__} {' '.join(map(str, what[:1]))}", f"{type(error).__name__}: {error}"

        for name, row in team.gather([tried(*job) for job in team.turns(jobs)]):
            note(name, row)

    def draw(self, note, model, student, how, few):
        """Contact sheets."""
        small, large, wide, long = [*sizes.TINY] * 2 if self.smoke else [
            sizes.Size(256, 256, 33), sizes.Size(512, 512, 33), sizes.Size(640, 384, 49), sizes.Size(320, 192, 81)]
        n = 2 if self.smoke else 20

        def clips(prompts, size, **settings):
            return model.clips(prompts, at_once=self.judged()[size][1], **size.how(), **settings)

        def sheets(name, settings):
            sheet.write(folder_of(name), [(clips(sheet.PROMPTS[:n], small, **settings), sheet.PROMPTS[:n], 96, 2),
                                          (clips(sheet.LARGE[:n], large, **settings), sheet.LARGE[:n], 192, 1)])
            return name, "drawn"

        def one(name, size, side):
            prompts = sheet.PROMPTS[:2 if self.smoke else 6]
            sheet.write(folder_of(name), [(clips(prompts, size, **how), prompts, side, 1)])
            return name, "drawn"

        folder_of = lambda name: self.path(name + ".jpg")
        jobs = [(sheets, "sheet", how), (one, "sheet_wide", wide, 160), (one, "sheet_long", long, 96)]
        if student:
            jobs.append((sheets, "sheet_turbo", few))
        self.deal(note, jobs)


def run(args, ends, drawers):
    stage = Stage(args, ends, drawers)
    team.join(stage.device)
    getattr(stage, args.part)()
    team.leave()
