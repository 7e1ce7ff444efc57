"""
The model of `SemCoTConfig()`, Sheared-LLaMA-1.3B with a 160M-class generator, at its real size with random weights:
built, saved, loaded in a fresh process through AutoModelForCausalLM, run forward and generate once.

    python -m benchmarks.real_size [--device cuda --dtype bfloat16] [--output results/real_size.json]
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM


def build(folder: str, dtype: str, device: str) -> dict[str, float]:
    """Writes a full checkpoint with random weights; returns its size in GB and the seconds taken."""
    from configuration_semcot import SemCoTConfig
    from modeling_semcot import SemCoTForCausalLM

    started = time.perf_counter()
    with torch.device(device):
        model = SemCoTForCausalLM._from_config(SemCoTConfig(), dtype=getattr(torch, dtype))
    built = time.perf_counter()
    model.save_pretrained(folder)
    return {
        "parameters": model.num_parameters(),
        "build_s": round(built - started, 2),
        "save_s": round(time.perf_counter() - built, 2),
        "checkpoint_gb": round(sum(file.stat().st_size for file in Path(folder).iterdir()) / 1e9, 2),
    }


def run(folder: str, dtype: str, device: str) -> dict[str, float | str]:
    """Loads the checkpoint and answers a batch of two prompts; returns seconds, the peak memory in GB, the machine."""
    started = time.perf_counter()
    model = AutoModelForCausalLM.from_pretrained(
        folder, trust_remote_code=True, dtype=getattr(torch, dtype), device_map=device
    )
    loaded = time.perf_counter()
    ids = torch.randint(3, 32000, (2, 48), generator=torch.Generator().manual_seed(0))
    ids[:, 40:45] = model.config.thought_token_id
    ids = ids.to(device)
    with torch.no_grad():
        output = model(input_ids=ids)
        if not torch.isfinite(output.logits).all():
            raise RuntimeError("The logits are not finite.")
    forward = time.perf_counter()
    sequences = model.generate(
        input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=8, min_new_tokens=8, do_sample=False
    )
    figures = {
        "type": type(model).__name__,
        "load_s": round(loaded - started, 2),
        "forward_s": round(forward - loaded, 2),
        "generate_8_tokens_s": round(time.perf_counter() - forward, 2),
        "logits_shape": list(output.logits.shape),
        "thoughts_shape": list(output.thoughts.shape),
        "sequences_shape": list(sequences.shape),
        "peak_rss_gb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9, 2),
    }
    if device.startswith("cuda"):
        figures["peak_gpu_gb"] = round(torch.cuda.max_memory_allocated() / 1e9, 2)
    from semcot.evaluation import describe_machine  # only now: what it imports is no part of the peak

    return figures | describe_machine(model)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default=None)
    parser.add_argument("--output", type=Path)
    parser.add_argument("--step", choices=["build", "run"], help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    options = parser.parse_args()
    dtype = options.dtype or ("float32" if options.device == "cpu" else "bfloat16")
    if options.step:
        step = (build if options.step == "build" else run)(options.folder, dtype, options.device)
        print(json.dumps(step))
        return

    figures = {}
    with tempfile.TemporaryDirectory() as folder:
        # Each in a process of its own, so that peak memory is that of loading and running.
        for step in ("build", "run"):
            command = [sys.executable, "-m", "benchmarks.real_size", "--step", step, "--folder", folder]
            result = subprocess.run(
                [*command, "--device", options.device, "--dtype", dtype], stdout=subprocess.PIPE, text=True, check=True
            )
            figures |= json.loads(result.stdout.splitlines()[-1])
    meta = {name: figures.pop(name) for name in ("device", "dtype", "cpu_threads", "versions")}
    record = {"run": {"command": " ".join(["python", "-m", "benchmarks.real_size", *sys.argv[1:]])}}
    record |= {"eval": [figures], "meta": meta}
    print(json.dumps(record, indent=2))
    if options.output:
        options.output.write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
