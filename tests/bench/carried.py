#!/usr/bin/env python3
"""What carried-over attention saves and costs, beside fewer steps: the rows of README's table.

    python3 tests/bench/carried.py --ditgen build/app/ditgen --size 256x256 --log carried.jsonl \
        resid resid:density=0 resid:every=5,density=.08 25 20

A row is a stack of --attention, or a number of steps for exact attention with fewer of them. Every row and
the exact run make eight prompts, one seed each; PSNR is of the bytes of all frames against the exact clip of
the same seed. Seconds are those of denoising; their share of the exact run's of the same prompt is the mean
over the prompts: --jobs clips at a time, --threads each, for all alike. Computed is the share of attention's
pairs. Every finished clip is a line of --log, so a run that was broken off goes on where it was, and the
table says how many prompts it knows. Standard library only."""
import argparse, concurrent.futures, json, os, re, shutil, statistics, subprocess, sys, tempfile, threading

PROMPTS = [
    "two ducks while a tiny umbrella zigzags in the falling snow", "a big shark moves left underwater",
    "a red car and a bus on a meadow", "an owl spins clockwise under the night sky",
    "a rocket flies up in outer space", "a small crab and a big fish in the sea",
    "a yellow balloon floats over the desert at sunset", "a penguin jumps in the snow"]
EXACT = "dense"


class Log:
    """Results by (size, frames, steps, precision, threads, jobs, prompt, row), in memory and in a file."""

    def __init__(self, args):
        self.key = [args.size, args.frames, args.steps, args.precision, args.threads, args.jobs]
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


def clip(args, folder, index, row):
    """Makes a clip; returns seconds of denoising and the computed share of attention."""
    steps, stack = (row, EXACT) if row.isdigit() else (str(args.steps), row)
    command = [args.ditgen, PROMPTS[index], "--size", args.size, "--frames", str(args.frames), "--seed", str(100 + index),
               "--steps", steps, "--attention", stack, "--precision", args.precision, "--threads", str(args.threads), "-v",
               "--progress", "json", "-y", "-o", folder + "/"]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
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


def prompt_rows(args, log, root, index):
    """All rows of one prompt, one after another: neighbours are the same for all."""
    missing = [row for row in args.rows if log.get(index, row) is None]
    if not missing:
        return
    exact, folder = (os.path.join(root, "%s%d" % (name, index)) for name in ("exact", "row"))
    log.put(index, EXACT, [None, *clip(args, exact, index, EXACT)])
    for row in missing:
        seconds, computed = clip(args, folder, index, row)
        log.put(index, row, [psnr(args, folder, exact), seconds, computed])
        shutil.rmtree(folder)
    shutil.rmtree(exact)


def table(args, log):
    base = {i: log.get(i, EXACT)[1] for i in range(args.prompts) if log.get(i, EXACT)}
    print("%s, %d frames, %d steps, %s, %d clips at a time with %d threads: exact %.1f s" %
          (args.size, args.frames, args.steps, args.precision, args.jobs, args.threads, statistics.mean(base.values())))
    print("| row | prompts | computed | seconds | share | mean dB | worst | all |\n|---|---|---|---|---|---|---|---|")
    for row in args.rows:
        made = [(i, log.get(i, row)) for i in range(args.prompts) if log.get(i, row)]
        if not made:
            continue
        db = [m[0] for _, m in made]
        print("| `%s` | %d | %.2f | %.1f | %.2f | %.1f | %.1f | %s |" %
              (row if not row.isdigit() else row + " steps", len(made), statistics.mean(m[2] for _, m in made),
               statistics.mean(m[1] for _, m in made), statistics.mean(m[1] / base[i] for i, m in made),
               statistics.mean(db), min(db), " ".join("%.1f" % d for d in db)))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ditgen", required=True)
    parser.add_argument("--size", default="256x256")
    parser.add_argument("--frames", type=int, default=33)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--precision", default="fp32", help="fp32, so that rounding does not decide")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--prompts", type=int, default=len(PROMPTS))
    parser.add_argument("--log", help="JSON lines, one a clip; what is there is not made again")
    parser.add_argument("--table", action="store_true", help="only the table of what the log has")
    parser.add_argument("rows", nargs="+")
    args = parser.parse_args()
    log, root = Log(args), tempfile.mkdtemp()
    try:
        if not args.table:
            with concurrent.futures.ThreadPoolExecutor(args.jobs) as pool:
                list(pool.map(lambda i: prompt_rows(args, log, root, i), range(args.prompts)))
    finally:
        shutil.rmtree(root)
        table(args, log)


if __name__ == "__main__":
    main()
