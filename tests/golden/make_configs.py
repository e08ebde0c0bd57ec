"""Configs as diffusers saves them, for the readers of JSON: data/configs.json, a list of
[class, what was set, whether ditgen must run it, the file's text].

Every scheduler class with its defaults, and for the three that ditgen runs, as a Wan pipeline has
them, every option by itself at another value. Texts of json.dumps itself, of values that only Python
writes (NaN, infinities, surrogates, long integers), have the class "json.dumps" and no verdict.
"""

import inspect
import json
import os
import tempfile

import diffusers

HERE = os.path.dirname(os.path.abspath(__file__))
FLOW = dict(use_flow_sigmas=True, prediction_type="flow_prediction")
OURS = {  # class: options as Wan's folders have them
    "UniPCMultistepScheduler": dict(flow_shift=3.0, **FLOW),
    "DPMSolverMultistepScheduler": dict(flow_shift=3.0, **FLOW),
    "FlowMatchEulerDiscreteScheduler": dict(shift=3.0),
}
# options that change nothing that a Wan pipeline computes
IDLE = {"beta_start", "beta_end", "beta_schedule", "trained_betas", "sample_max_value", "dynamic_thresholding_ratio"}
IDLE |= {"timestep_spacing", "steps_offset", "rescale_betas_zero_snr", "lambda_min_clipped", "sigma_min", "sigma_max"}
IDLE |= {"base_shift", "max_shift", "base_image_seq_len", "max_image_seq_len", "time_shift_type", "euler_at_final"}
OTHER = {  # another value of an option whose default says too little
    "trained_betas": [0.1, 0.2],
    "solver_p": None,
    "disable_corrector": [1],
    "shift_terminal": 0.1,
    "variance_type": "learned",
    "sigma_min": 0.1,
    "sigma_max": 2.0,
    "time_shift_type": "linear",
    "final_sigmas_type": "sigma_min",
    "timestep_spacing": "trailing",
    "beta_schedule": "scaled_linear",
    "lambda_min_clipped": -5.1,
    "solver_type": "heun",
    "algorithm_type": "sde-dpmsolver++",
    "prediction_type": "epsilon",
}
VALUES = [
    float("inf"), -float("inf"), float("nan"), [float("nan"), -float("inf")], {"a": float("inf")}, 10**4299, -(10**70),
    1e-07, 1e22, -0.0, 5e-324, 1.7976931348623157e308, "\ud800", "x\udfffy", "\ud83d\ude00", "a\0b", "\x7f\x1f\u2028",
    "\"\\/\b\f\n\r\t", "", {"": {"": []}}, {1: 2, "1": 3}, {None: 1, True: 2, 1.5: 3}, True, None, [], {}, 0,
]  # fmt: skip


def saved(scheduler):
    with tempfile.TemporaryDirectory() as d:
        scheduler.save_pretrained(d)
        with open(os.path.join(d, "scheduler_config.json"), encoding="utf-8") as f:
            return f.read()


def main():
    out = []
    for name in sorted(n for n in dir(diffusers) if n.endswith("Scheduler")):
        cls = getattr(diffusers, name)
        try:
            out.append([name, "defaults", None, saved(cls())])
        except Exception as x:  # a class that wants a package, or is no scheduler of its own
            print(name, "left out:", type(x).__name__, str(x)[:80])
    for name, base in OURS.items():
        cls = getattr(diffusers, name)
        out.append([name, "wan", True, saved(cls(**base))])
        for key, p in inspect.signature(cls.__init__).parameters.items():
            if key in ("self", "num_train_timesteps", "flow_shift", "shift"):
                continue
            value = not p.default if isinstance(p.default, bool) else OTHER.get(key)
            if value is None or value == base.get(key, p.default):
                continue
            try:
                text = saved(cls(**{**base, key: value}))
            except Exception as x:
                print(name, key, "left out:", str(x)[:80])
                continue
            out.append([name, f"{key} = {value}", True if key in IDLE else None, text])
    for v in VALUES:
        for form in (dict(), dict(indent=2), dict(ensure_ascii=False), dict(separators=(",", ":"), sort_keys=False)):
            if form.get("ensure_ascii") is False and "ud" in ascii(v):
                continue  # a file cannot hold it
            text = json.dumps({"value": v}, **form)
            if text not in (x[3] for x in out):
                out.append(["json.dumps", ascii(v)[:60], None, text])
    path = os.path.join(HERE, "data", "configs.json")
    with open(path, "w", encoding="utf-8") as f:
        json.dump(out, f, indent=0, ensure_ascii=True)
        f.write("\n")
    print(path, len(out), "texts,", os.path.getsize(path), "bytes")


if __name__ == "__main__":
    main()
