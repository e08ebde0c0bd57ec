#!/usr/bin/env python3
"""What carried-over attention saves and costs, beside fewer steps: the rows of README's table.

    python3 tests/bench/carried.py --ditgen build/app/ditgen --size 256x256 --log carried.jsonl \
        resid resid:density=0 resid:every=5,density=.08 'dense | magcache' 25 20

A row is a stack of --attention, one with a step cache behind a bar, or a number of steps for exact attention
with fewer of them. Every row and
the exact run make eight prompts, one seed each; PSNR is of the bytes of all frames against the exact clip of
the same seed. Seconds are those of denoising; their share of the exact run's of the same prompt is the mean
over the prompts. --jobs clips are made at a time, --threads each, all alike; each lane of them keeps to
processors of its own where there are enough. Computed is the share of attention's pairs. Every finished clip
is a line of --log under what made it, the model's files included, so that a run which was broken off goes on
where it was, another model begins anew, and the table says how many prompts it knows. Standard library only."""
import argparse, concurrent.futures, hashlib, json, os, re, shutil, statistics, subprocess, sys, tempfile, threading

PROMPTS = [
    "two ducks while a tiny umbrella zigzags in the falling snow", "a big shark moves left underwater",
    "a red car and a bus on a meadow", "an owl spins clockwise under the night sky",
    "a rocket flies up in outer space", "a small crab and a big fish in the sea",
    "a yellow balloon floats over the desert at sunset", "a penguin jumps in the snow"]
EXACT = "dense"
TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def model(args):
    """What tells one model from another: names and sizes of its files, and where defaults come from."""
    text = subprocess.run([args.ditgen, "x", "--plan", "--seed", "1", "--size", args.size, "--frames", str(args.frames)] +
                          (["--model", args.model] if args.model else []),
                          stdout=subprocess.PIPE, text=True, check=True).stdout
    facts = [line for line in text.splitlines() if line.startswith(("model", "sampling"))]
    for folder, _, names in os.walk(args.model or os.path.join(TOP, "assets/emoji")):
        for name in sorted(names):
            if name.endswith((".safetensors", ".ini")):
                with open(os.path.join(folder, name), "rb") as f:
                    facts.append(name + hashlib.sha256(f.read()).hexdigest())
    return hashlib.sha256("\n".join(sorted(facts)).encode()).hexdigest()[:12]


class Log:
    """Results by (size, frames, steps, precision, threads, jobs, model, prompt, row), in memory and in a file."""

    def __init__(self, args):
        self.key = [args.size, args.frames, args.steps, args.precision, args.threads, args.jobs, model(args)]
        self.key += [] if args.device == "cpu" else [args.device]
        self.known, self.lock, self.path = {}, threading.Lock(), args.log
        if self.path and os.path.exists(self.path):
            for line in open(self.path):
                key, value = json.loads(line)
                self.known[tuple(key)] = value

    def get(self, prompt, row):
        return self.known.get(tuple(self.key + [prompt, row]))

    def put(self, prompt, row, value):
        with self.lock:
            self.known[tuple(self.key + [prompt, row])] = value
            if self.path:
                with open(self.path, "a") as f:
                    f.write(json.dumps([self.key + [prompt, row], value]) + "\n")


def clip(args, folder, index, row, own):
    """Makes a clip; returns seconds of denoising and the computed share of attention."""
    steps, row = (row, EXACT) if row.isdigit() else (str(args.steps), row)
    stack, _, cache = (part.strip() for part in row.partition("|"))
    command = [args.ditgen, PROMPTS[index], "--size", args.size, "--frames", str(args.frames), "--seed", str(100 + index),
               "--steps", steps, "--attention", stack, "--step-cache", cache or "none", "--precision", args.precision, "--threads", str(args.threads),
               "--device", args.device, "-v",
               "--progress", "json", "-y", "-o", folder + "/"] + (["--model", args.model] if args.model else [])
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                          preexec_fn=(lambda: os.sched_setaffinity(0, own)) if own else None)
    if done.returncode:
        raise SystemExit("%s\n%s" % (" ".join(command), done.stderr[-2000:]))
    seconds, computed = None, 1.0
    for line in done.stderr.splitlines():
        found = re.search(r"density ([0-9.]+)", line)
        if found:
            computed = float(found.group(1))
        if line.startswith("{"):
            event = json.loads(line)
            if event.get("phase") == "denoise":
                seconds = event["seconds"]
    return seconds, computed


def psnr(args, one, other):
    text = subprocess.run([args.ditgen, "compare", one, other, "--json"], stdout=subprocess.PIPE, text=True, check=True).stdout
    value = json.loads(text)["psnr"]
    return 99.0 if value is None else value  # equal frames


def cores(args):
    """One set of processors a lane, none shared; None: the system places them (fewer than lanes want)."""
    free = sorted(os.sched_getaffinity(0))
    if args.jobs * args.threads > len(free):
        return [None] * args.jobs
    return [free[i * args.threads:(i + 1) * args.threads] for i in range(args.jobs)]


class Work:
    """Clips for lanes: exact ones first, so that what is compared with them need not wait long."""

    def __init__(self, args, log, root):
        self.args, self.log, self.root, self.failed = args, log, root, []
        missing = [(i, row) for i in range(args.prompts) for row in args.rows if log.get(i, row) is None]
        self.exact = {i: threading.Event() for i in sorted({i for i, _ in missing})}
        self.left = [(i, EXACT) for i in self.exact] + missing
        self.rows_left = {i: sum(1 for m in missing if m[0] == i) for i in self.exact}
        self.lock = threading.Lock()

    def folder(self, index, row):
        return os.path.join(self.root, "%d-%s" % (index, "exact" if row == EXACT else re.sub("[^a-z0-9]+", "-", row)))

    def lane(self, own):
        while not self.failed:
            with self.lock:
                if not self.left:
                    return
                index, row = self.left.pop(0)
            try:
                self.one(index, row, own)
            except BaseException as e:
                self.failed.append(e)
                for event in self.exact.values():
                    event.set()
                raise

    def one(self, index, row, own):
        folder, exact = self.folder(index, row), self.folder(index, EXACT)
        seconds, computed = clip(self.args, folder, index, row, own)
        if row == EXACT:
            if self.log.get(index, EXACT) is None:
                self.log.put(index, EXACT, [None, seconds, computed])
            self.exact[index].set()
            return
        self.exact[index].wait()
        if self.failed:
            return
        self.log.put(index, row, [psnr(self.args, folder, exact), seconds, computed])
        shutil.rmtree(folder)
        with self.lock:
            self.rows_left[index] -= 1
            if not self.rows_left[index]:
                shutil.rmtree(exact)


def table(args, log):
    base = {i: log.get(i, EXACT)[1] for i in range(args.prompts) if log.get(i, EXACT)}
    print("%s, %d frames, %d steps, %s, %s, %d clips at a time with %d threads: exact %.3g s" %
          (args.size, args.frames, args.steps, args.device, args.precision, args.jobs, args.threads,
           statistics.mean(base.values())))
    print("| row | prompts | computed | seconds | share | mean dB | worst | all |\n|---|---|---|---|---|---|---|---|")
    for row in args.rows:
        made = [(i, log.get(i, row)) for i in range(args.prompts) if log.get(i, row)]
        if not made:
            continue
        db = [m[0] for _, m in made]
        print("| `%s` | %d | %.2f | %.3g | %.2f | %.1f | %.1f | %s |" %
              (row.replace("|", "\\|") if not row.isdigit() else row + " steps", len(made), statistics.mean(m[2] for _, m in made),
               statistics.mean(m[1] for _, m in made), statistics.mean(m[1] / base[i] for i, m in made),
               statistics.mean(db), min(db), " ".join("%.1f" % d for d in db)))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ditgen", required=True)
    parser.add_argument("--model", help="a folder; without it the one built in")
    parser.add_argument("--size", default="256x256")
    parser.add_argument("--frames", type=int, default=33)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--precision", default="fp32", help="fp32, so that rounding does not decide")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--device", default="cpu", help="seconds say something of a GPU with one clip at a time")
    parser.add_argument("--prompts", type=int, default=len(PROMPTS))
    parser.add_argument("--log", help="JSON lines, one a clip; what is there is not made again")
    parser.add_argument("--table", action="store_true", help="only the table of what the log has")
    parser.add_argument("rows", nargs="+")
    args = parser.parse_args()
    log, root = Log(args), tempfile.mkdtemp()
    try:
        if not args.table:
            work = Work(args, log, root)
            with concurrent.futures.ThreadPoolExecutor(args.jobs) as pool:
                list(pool.map(work.lane, cores(args)))
    finally:
        shutil.rmtree(root)
        table(args, log)


if __name__ == "__main__":
    main()
