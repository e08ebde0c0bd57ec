#!/usr/bin/env python3
"""What carried-over attention saves and costs, beside fewer steps: the rows of README's table.

    python3 tests/bench/carried.py --ditgen build/app/ditgen --size 256x256 --jobs 8 --threads 2 \
        'resid' 'resid:density=0' 20

A row is a stack of --attention, or a number of steps for exact attention with fewer of them. Every row and
the exact run make eight prompts, one seed each; PSNR is of the bytes of all frames against the exact clip of
the same seed. Seconds are those of denoising, as a share of the exact run's of the same prompt, mean over the
prompts: --jobs clips at a time, --threads each, for all alike. Computed is the share of attention's pairs.
Standard library only."""
import argparse, concurrent.futures, json, os, re, shutil, statistics, subprocess, sys, tempfile

PROMPTS = [
    "two ducks while a tiny umbrella zigzags in the falling snow", "a big shark moves left underwater",
    "a red car and a bus on a meadow", "an owl spins clockwise under the night sky",
    "a rocket flies up in outer space", "a small crab and a big fish in the sea",
    "a yellow balloon floats over the desert at sunset", "a penguin jumps in the snow"]


def clip(args, folder, index, row):
    """Makes a clip; returns seconds of denoising and the computed share of attention."""
    flags = ["--steps", row] if row.isdigit() else ["--attention", row]
    command = [args.ditgen, PROMPTS[index], "--size", args.size, "--frames", str(args.frames), "--seed", str(100 + index),
               "--steps", str(args.steps), "--precision", args.precision, "--threads", str(args.threads), "-v", "--progress",
               "json", "-y", "-o", folder + "/"] + flags
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if done.returncode:
        sys.exit("%s\n%s" % (" ".join(command), done.stderr[-2000:]))
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
    return float("inf") if value is None else value


def job(args, root, index):
    """All rows of one prompt, one after another: neighbours are the same for all."""
    exact = os.path.join(root, "exact%d" % index)
    os.mkdir(exact)
    base, _ = clip(args, exact, index, "dense")
    rows = []
    for row in args.rows:
        folder = os.path.join(root, "row%d" % index)
        os.mkdir(folder)
        seconds, computed = clip(args, folder, index, row)
        rows.append((psnr(args, folder, exact), seconds, computed))
        shutil.rmtree(folder)
    shutil.rmtree(exact)
    return base, rows


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
    parser.add_argument("rows", nargs="+")
    args = parser.parse_args()
    root = tempfile.mkdtemp()
    try:
        with concurrent.futures.ThreadPoolExecutor(args.jobs) as pool:
            made = list(pool.map(lambda i: job(args, root, i), range(args.prompts)))
    finally:
        shutil.rmtree(root)
    base = [m[0] for m in made]
    print("%s, %d frames, %d steps, %s, %d clips at a time with %d threads: exact %.1f s" %
          (args.size, args.frames, args.steps, args.precision, args.jobs, args.threads, statistics.mean(base)))
    print("| row | computed | seconds | share | mean dB | worst | all |\n|---|---|---|---|---|---|---|")
    for i, row in enumerate(args.rows):
        db = [m[1][i][0] for m in made]
        seconds = [m[1][i][1] for m in made]
        share = statistics.mean(s / b for s, b in zip(seconds, base))
        print("| `%s` | %.2f | %.1f | %.2f | %.1f | %.1f | %s |" %
              (row if not row.isdigit() else row + " steps", statistics.mean(m[1][i][2] for m in made), statistics.mean(seconds),
               share, statistics.mean(db), min(db), " ".join("%.1f" % d for d in db)))


if __name__ == "__main__":
    main()
