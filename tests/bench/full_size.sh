#!/bin/sh
# ditgen at full size: a folder shaped like Wan2.1 1.3B of random weights, text encoder included, at
# 256x256 and 5 frames (512 tokens): seconds of a forward, of text encoding and of the VAE, peak memory.
#
#     tests/bench/full_size.sh DITGEN [DIR [SD]]
#
# DITGEN  the built program
# DIR     where the 14.5 GB folder is or will be written (default ./wan13b, 3 GB more with SD)
# SD      sd-cli of stable-diffusion.cpp, built from its repository for this machine: timed in the same
#         run, on weights of the same shape, in each of the settings below; the best one counts
#
# PRECISIONS="fp32 bf16" STEPS=3 RUNS=1 THREADS=0 may be set, and RUN to what goes before each timed
# command, such as RUN="taskset -c 0-7". Wants python3, and 16 GB of memory.
set -eu
export DITGEN_DEVICE="${DITGEN_DEVICE:-cpu}"
here=$(cd "$(dirname "$0")" && pwd)
[ $# -ge 1 ] || { sed -n '2,14s/^# \{0,1\}//p' "$0"; exit 2; }
ditgen=$1 dir=${2:-wan13b} sd=${3:-}
steps=${STEPS:-3} runs=${RUNS:-1} threads=${THREADS:-0}
if [ -z "${PRECISIONS:-}" ]; then
    PRECISIONS=fp32
    if grep -Eqw 'avx512_bf16|amx_bf16' /proc/cpuinfo; then PRECISIONS="fp32 bf16"; fi
fi
prompt="a rocket flies up in outer space"

python3 "$here/make_wan.py" "$dir" ${sd:+--original}
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT

for precision in $PRECISIONS; do
    echo "ditgen $precision ..." >&2
    ${RUN:-} "$ditgen" bench "$prompt" -m "$dir" --size 256x256 --frames 5 --steps "$steps" --guidance-scale 1 \
        --precision "$precision" --runs "$runs" -t "$threads" --json > "$tmp/ditgen-$precision.json"
done

if [ -n "$sd" ]; then
    n=$(nproc)
    [ "$threads" -eq 0 ] || n=$threads
    k=0
    # as it comes; with its flash attention; with the transformer as f16, as f32, and direct convolutions
    for flags in "" "--diffusion-fa" \
        "--diffusion-fa --tensor-type-rules ^model.diffusion_model=f16 --vae-conv-direct" \
        "--diffusion-fa --tensor-type-rules ^model.diffusion_model=f32"; do
        k=$((k + 1))
        echo "stable-diffusion.cpp $flags ..." >&2
        # shellcheck disable=SC2086
        ${RUN:-} "$sd" -M vid_gen --diffusion-model "$dir/original/wan13b.safetensors" \
            --vae "$dir/original/wan_vae.safetensors" --t5xxl "$dir/text_encoder/model.safetensors" \
            -p "$prompt" -W 256 -H 256 --video-frames 5 --steps "$steps" --cfg-scale 1 -s 1 \
            --sampling-method euler --flow-shift 3 --threads "$n" --mmap -v $flags \
            -o "$tmp/sd.avi" > "$tmp/sd-$k.log" 2>&1 || echo "  failed: $(tail -n 1 "$tmp/sd-$k.log")" >&2
        echo "flags: $flags" >> "$tmp/sd-$k.log"
    done
fi

STEPS=$steps python3 - "$tmp" <<'END'
import glob, json, os, re, sys

steps = int(os.environ["STEPS"])
rows, head = [], ""
for path in sorted(glob.glob(sys.argv[1] + "/ditgen-*.json")):
    b = json.load(open(path))
    s, peak = {k: v["median"] for k, v in b["seconds"].items()}, b.get("peak_fp32_gflops", 0)
    head = f"{b['cpu']}, {b['threads']} threads, peak {peak:.0f} GFLOP/s fp32, {b['tokens']} tokens, {b['linear']}"
    gib = {k: v / 2**30 for k, v in b["measured_bytes"].items()}
    rows.append(("ditgen " + b["precision"], s["text"], s["step"], s["decode"], gib["peak"]))
    print(f"ditgen {b['precision']}: opening the transformer {s['open']:.1f} s; peak memory by phase, mapped "
          f"weights included: " + ", ".join(f"{k} {v:.2f} GiB" for k, v in gib.items())
          + f"; a forward at {b['step_gflop'] / s['step'] / max(1e-9, peak) * 100:.0f} % of the fp32 peak")  # fmt: skip
for path in sorted(glob.glob(sys.argv[1] + "/sd-*.log")):
    log = open(path, errors="replace").read()

    def took(what):
        m = re.findall(what + r" completed, taking ([\d.]+)s", log)
        return float(m[-1]) if m else float("nan")

    flags = re.findall(r"^flags: (.*)$", log, re.M)[-1] or "(default)"
    rows.append(("sd.cpp " + flags, took("get_learned_condition"), took("sampling") / steps,
                 took("decode_first_stage"), float("nan")))  # fmt: skip
print(head)
print(f"{'seconds':92}{'text':>9}{'forward':>9}{'VAE':>9}{'GiB':>8}")
for name, *v in rows:
    print(f"{name[:91]:92}" + "".join(f"{x:9.2f}" for x in v[:3]) + f"{v[3]:8.2f}")
ours, theirs = [r for r in rows if r[0].startswith("ditgen")], [r for r in rows if r[0].startswith("sd.cpp")]
for i, what in ((1, "text"), (2, "forward"), (3, "VAE")):
    t = [r[i] for r in theirs if r[i] == r[i]]
    for r in ours:
        if t:
            print(f"{what}: {r[0]} is {min(t) / r[i]:.2f}x as fast as stable-diffusion.cpp's best")
END
