"""From nothing to the embedded model, on all GPUs of a machine, in a given time:

    python3 train.py WORK [--until MINUTES]

    sprites, tokenizer      what is drawn, the words for it
    encoder, vae, judge     side by side; beside them, what later stages compile is compiled (warm.py)
    dit                     on all GPUs, each with its own clips and all with the mean of their gradients
    turbo                   likewise
    export, report          the model's folder; the judge's table of it and contact sheets

Each stage is a process a GPU of its own (stages.py), started while the one before it runs, and is skipped when its result
lies in WORK. The transformer is saved every tenth of its time: after a broken run the same command goes on from there.
"""
import argparse
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

HERE = Path(__file__).parent
# Stages that run together; GPU of each where it takes one: a number, all of them, or none.
GROUPS = [dict(sprites=None), dict(tokenizer=None), dict(vae=0, judge=1, encoder=1), dict(dit="all"), dict(turbo="all"),
          dict(export=None, report="all")]
STAGES = [stage for group in GROUPS for stage in group]
# What time is left is shared out in these parts; a stage together with others counts by the longest of them.
PARTS = dict(vae=270, judge=270, encoder=135, dit=880, turbo=150)
ALONE = dict(vae=330, judge=330, encoder=165, dit=790, turbo=150)  # on one GPU
REST = dict(vae=20, dit=15, turbo=10, report=240)  # seconds outside the training loop, kept free first
RESULTS = dict(sprites="sprites.npz", tokenizer="tokenizer", encoder="encoder.safetensors", vae="vae",
               judge="judge.safetensors", turbo="turbo.safetensors")
DRAWING = ["encoder", "judge", "dit"]  # captions by the hundred: in processes beside


class Team:
    """A stage's processes, one a GPU. They import what they need, then wait for `go`."""

    def __init__(self, run, stage, gpus, **more):
        self.run, self.stage, self.processes, self.readers = run, stage, [], []
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            port = s.getsockname()[1]
        for rank, gpu in enumerate(gpus):
            env = dict(os.environ, CUDA_VISIBLE_DEVICES="" if gpu is None else run.devices[gpu], PYTHONUNBUFFERED="1",
                       TQDM_DISABLE="1")
            if len(gpus) > 1:
                env.update(RANK=str(rank), WORLD_SIZE=str(len(gpus)), MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port),
                           GLOO_SOCKET_IFNAME="lo", NCCL_SOCKET_IFNAME="lo")
            env.update(more.get("env", {}))
            command = [sys.executable, HERE / "train.py", *sys.argv[1:], "--part", stage, "--batch", str(run.batch),
                       "--drawers", str(run.drawers if stage in DRAWING else 0), "--what", more.get("what", "")]
            process = subprocess.Popen(command, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                       stderr=subprocess.STDOUT, text=True, errors="replace", start_new_session=True)
            process.last = ""
            self.processes.append(process)
            self.readers.append(threading.Thread(target=self.read, args=(process, f"{stage}.{rank}" if rank else stage)))
            self.readers[-1].start()

    def read(self, process, name):
        for line in process.stdout:
            if line.strip():
                process.last = line.rstrip()
                self.run.say(name, process.last)

    def go(self, ends):
        for p in self.processes:
            try:
                p.stdin.write(f"{ends}\n")
                p.stdin.close()
            except BrokenPipeError:
                pass  # it is dead: failed() tells
        return self

    def done(self):
        return all(p.poll() == 0 for p in self.processes)

    def failed(self):
        """-> what went wrong, or None. One that was killed has drawn the others along."""
        wrong = [(p.returncode, rank, p.last) for rank, p in enumerate(self.processes) if p.poll()]
        if wrong:
            code, rank, last = min(wrong)
            return (f"{self.stage}, process {rank} of {len(self.processes)}, "
                    f"{f'was killed by signal {-code}' if code < 0 else 'failed'}" + (f": {last}" if last else ""))

    def stop(self):
        for p in self.processes:
            try:
                os.killpg(p.pid, signal.SIGKILL)  # with the processes that draw captions for it
            except ProcessLookupError:
                pass
            p.wait()


class Run:
    def __init__(self, args):
        self.args, self.work, self.start = args, Path(args.work), time.time()
        self.work.mkdir(parents=True, exist_ok=True)
        self.file, self.lock = open(self.work / "log.txt", "a"), threading.Lock()
        self.gpus = args.gpus or count_gpus()
        self.devices = os.environ.get("CUDA_VISIBLE_DEVICES", ",".join(map(str, range(self.gpus)))).split(",")
        self.devices += [""] * (self.gpus - len(self.devices))  # processes on the CPU
        self.batch = args.batch or (1. if self.gpus == 1 else 2 / 3)
        cores = os.cpu_count() or 1
        self.drawers = 1 if args.smoke else max(1, min(6, cores // (2 * self.gpus + 2)))
        self.parts = ALONE if self.gpus == 1 else PARTS
        self.teams = []

    def say(self, name, text):
        line = f"[{time.time() - self.start:7.1f}] {name:9} {text}"
        with self.lock:
            print(line, flush=True)
            self.file.write(line + "\n")
            self.file.flush()

    def done(self, stage):
        if stage in self.args.again and stage != "judge" or stage in ("export", "report"):
            return False
        if stage == "dit":
            kept = self.work / "dit.json"
            return kept.exists() and json.loads(kept.read_text())["passed"] == 1
        if stage in self.args.again and stage == "judge":
            return (self.work / RESULTS[stage]).exists()
        published = (stage in ("tokenizer", "encoder") or stage == "vae" and not self.args.start_vae
                     or stage == "judge" and (HERE / RESULTS["judge"]).exists())
        return (self.work / RESULTS[stage]).exists() or bool(self.args.start) and published

    def todo(self):
        groups = [{s: gpu for s, gpu in group.items() if s in self.args.only and not self.done(s)} for group in GROUPS]
        return [group for group in groups if group]

    def seconds(self, groups):
        """-> stage: its seconds, shares of what is left of --until after what --seconds fixes and REST keeps free."""
        left = self.start + 60 * (self.args.until or 27) - time.time()
        weights, given = [], self.args.seconds
        for group in groups:
            left -= max(REST.get(s, 0) for s in group)
            fixed = [given[s] for s in group if s in given]
            left -= max(fixed, default=0)
            weights.append(0 if fixed else max(self.parts.get(s, 0) for s in group))
        unit = max(0, left) / max(1, sum(weights))
        return {s: given.get(s, max(1, unit * self.parts[s])) for group in groups for s in group if s in self.parts}

    def launch(self, group):
        teams = []
        for stage, gpu in group.items():
            gpus = [None] if gpu is None else range(self.gpus) if gpu == "all" else [gpu % self.gpus]
            teams.append(Team(self, stage, gpus))
        self.teams += teams
        return teams

    def warm(self, stages):
        """Beside the first long stages: a process for every two or three graphs."""
        names = self.graphs(stages)
        count = 1 if self.args.smoke else max(2, min(9, (os.cpu_count() or 1) // 4, len(names)))
        first = lambda i: ["choose"] if i == 0 else []
        teams = [Team(self, "warm", [i % self.gpus], what=",".join(first(i) + names[(i - 1) % count::count]),
                      env=dict(TORCHINDUCTOR_COMPILE_THREADS="4")) for i in range(count)]
        self.teams += teams
        return [team.go(0) for team in teams]

    def graphs(self, stages):
        """What these stages compile; a transformer that goes on does not see the beginning of its plan."""
        import warm
        from train_dit import GENTLE, later
        begin = GENTLE if getattr(self.args, "from") is None else getattr(self.args, "from")
        shapes = later(begin if self.args.start else 0., self.args.smoke)
        wanted = dict(dit=lambda n: " " not in n and n in shapes, turbo=lambda n: n[:6] == "turbo ",
                      report=lambda n: n[:9] == "sampling ")
        return [n for n in warm.names(self.args.smoke) if any(wanted[s](n) for s in stages if s in wanted)]

    def wait(self, teams, until=None):
        while not all(team.done() for team in teams):
            for team in teams:
                if team.failed():
                    time.sleep(.5)  # last words
                    raise SystemExit(f"train.py: {team.failed()}. All its processes were stopped; what is finished lies in "
                                     f"{self.work}, and the same command goes on from there.")
                if until and time.time() > until and team.stage == "report" and not team.done():
                    self.say(team.stage, "stopped: the time of --until is over")
                    team.stop()
                    teams = [t for t in teams if t is not team]
            time.sleep(.1)
        for team in teams:
            team.stop()

    def plan(self, groups):
        seconds = self.seconds(groups)
        self.say("plan", f"{self.gpus} GPUs, batch {self.batch:.2f} of one GPU's, {self.args.until or 27:.1f} minutes")
        for group in groups:
            for stage, gpu in group.items():
                where = "CPU" if gpu is None else "all GPUs" if gpu == "all" else f"GPU {gpu % self.gpus}"
                self.say("plan", f"{stage:9} {where:8} " + (f"{seconds[stage]:.0f} s" if stage in seconds else ""))

    def all(self):
        groups, ahead = self.todo(), None
        self.plan(groups)
        heavy = [s for group in groups for s in group if s in ("dit", "turbo", "report")]
        for i, group in enumerate(groups):
            teams = ahead or self.launch(group)
            seconds = self.seconds(groups[i:])
            for team in teams:
                team.go(time.time() + seconds.get(team.stage, 0))
            if heavy and not any(s in group for s in ("sprites", "tokenizer")):
                self.warm(heavy)
                heavy = []
            ahead = self.launch(groups[i + 1]) if i + 1 < len(groups) else None
            self.wait(teams, self.start + 60 * self.args.until if self.args.until and "report" in group else None)
            self.say("plan", ", ".join(group) + " done")


def count_gpus():
    import torch
    return torch.cuda.device_count() or 1


def names(text):
    return text.split(",")


def seconds_of(text):
    return {k: float(v) for k, v in (item.split("=") for item in text.split(","))}


def parse():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("work", help="folder for all results")
    p.add_argument("--until", type=float, help="minutes for everything, from the start of the command (27)")
    p.add_argument("--gpus", type=int, help="how many to use (all)")
    p.add_argument("--batch", type=float, help="of the transformer's and the adapter's on each GPU: a share of what one GPU "
                   "alone takes (1; 2/3 where there are more)")
    p.add_argument("--only", type=names, default=STAGES, help="stages, with commas: " + ",".join(STAGES))
    p.add_argument("--seconds", type=seconds_of, default={}, help="fixed times instead of shares: dit=600,turbo=200")
    p.add_argument("--start", help="a published model folder: its tokenizer, encoder and vae stay, and the judge beside "
                   "this code; its transformer goes on")
    p.add_argument("--start-vae", help="a published model folder whose vae is trained further")
    p.add_argument("--again", type=names, default=[], help="encoder, judge, dit: train what is there further; turbo: anew")
    p.add_argument("--from", type=float, help="where in its plan a transformer goes on that was trained to the end "
                   "(where the sizes larger than 256 x 256 begin)")
    p.add_argument("--seed", type=int, default=0, help="another one for every --again")
    p.add_argument("--compare", help="a published model folder to judge beside the new one")
    p.add_argument("--drawings", help="folder of Noto Emoji's drawings (.svg): subjects crisp at any size; without it they "
                   "are cut out of the font and soft beyond 109 pixels")
    p.add_argument("--smoke", action="store_true", help="all of it at tiny size, a few steps a stage or --until")
    for inside in ("--part", "--what"):
        p.add_argument(inside, help=argparse.SUPPRESS)
    p.add_argument("--drawers", type=int, help=argparse.SUPPRESS)
    return p.parse_args()


def part(args):
    """A stage's process: all is imported before its time begins."""
    import traceback

    import stages
    from common import drawers
    pool = drawers(args.drawers)
    ends = sys.stdin.readline()
    if not ends:
        return  # train.py is gone
    code = 0
    try:
        stages.run(args, float(ends), pool)
    except BaseException:
        code = 1
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # at once: others wait


def main():
    args = parse()
    if args.part:
        return part(args)
    run = Run(args)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("train.py: told to end"))
    try:
        run.all()
    except SystemExit as end:
        run.say("train.py", end)
        raise
    finally:
        for team in run.teams:
            team.stop()


if __name__ == "__main__":
    main()
