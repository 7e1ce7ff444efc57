"""
What a checkpoint's dtype and its base's quantisation are worth on one machine: seconds of an answer at batch size 1,
in alternation with float32 without shortcuts and divided by its, strict accuracy, and bytes of the weights.

    SEMCOT_DATA_DIR=data python -m benchmarks.precision --data multiarith [--only OpenVINO] [--output FILE]

`int8` is torchao's: of the base's matrices alone, weights by rows; *dynamic* rounds what they are multiplied by too.
OpenVINO has copies of its own beside the weights that are counted.
"""

import argparse
import statistics
import sys
import time
from pathlib import Path

import torch
from transformers import TorchAoConfig
from transformers.utils import logging

from benchmarks.latency import Plain
from modeling_semcot import SemCoTForCausalLM
from semcot.data import fingerprint, load_problems
from semcot.evaluation import describe_machine, evaluate_method, load_model, weights_sha256
from semcot.evaluation.methods import SemCoT
from semcot.files import write_json
from semcot.serving.openvino import with_openvino

OPENVINO = "OpenVINO"


def variants() -> dict[str, dict]:
    """Arguments of `from_pretrained` by the name of what they make."""
    from torchao.quantization import Int8DynamicActivationInt8WeightConfig, Int8WeightOnlyConfig

    dtypes = {"float32": torch.float32, "bfloat16": torch.bfloat16}
    found = {name: {"dtype": dtype} for name, dtype in dtypes.items()}
    for name, dtype in dtypes.items():
        for kind, config in (("", Int8WeightOnlyConfig), (" dynamic", Int8DynamicActivationInt8WeightConfig)):
            found[f"{name}, base int8{kind}"] = {"dtype": dtype, "quantization_config": TorchAoConfig(config())}
    return found | {f"{name}, {OPENVINO}": {"dtype": dtype} for name, dtype in dtypes.items()}


def weight_bytes(module: torch.nn.Module) -> int:
    """Bytes of the weights as they lie in memory, those of quantised ones' parts."""
    parts = list(module.parameters())
    total = 0
    while parts:
        part = parts.pop()
        if hasattr(part, "__tensor_flatten__"):
            held = (getattr(part, name) for name in part.__tensor_flatten__()[0])
            parts += [tensor for tensor in held if tensor is not None]
        else:
            total += part.nbytes
    return total


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=".")
    parser.add_argument("--data", default="synthetic_arithmetic", help="its eval split")
    parser.add_argument("--limit", type=int, default=180, help="problems to answer, in batches of 16")
    parser.add_argument("--latency_samples", type=int, default=20)
    parser.add_argument("--only", default="", help="what the names of the variants must hold")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    logging.set_verbosity_error()
    plain, tokenizer = load_model(options.model, "cpu", "float32")
    problems = load_problems(options.data, "eval", num_samples=options.limit, seed=options.seed)
    questions = [problem["question"] for problem in problems][: options.latency_samples]
    rows = []
    for name, loading in variants().items():
        if options.only not in name:
            continue
        model = SemCoTForCausalLM.from_pretrained(options.model, **loading).eval()
        if name.endswith(OPENVINO):
            model = with_openvino(model)
        methods = Plain(plain, tokenizer), Plain(model, tokenizer), SemCoT(model, tokenizer)
        seconds = [[], [], []]
        for question in questions:
            for method, taken in zip(methods, seconds, strict=True):
                started = time.perf_counter()
                method.answer([question])
                taken.append(time.perf_counter() - started)
        medians = [statistics.median(taken[2:]) for taken in seconds]  # without those that warm up
        figures, _ = evaluate_method(methods[2], problems, latency_samples=0)
        kept = ("n", "accuracy", "samples_per_s")
        rows.append(
            {"name": name, "ratio": medians[2] / medians[0], "ratio_without_shortcuts": medians[1] / medians[0]}
            | {
                "median_s": medians[2],
                "float32_without_shortcuts_s": medians[0],
                "weights_mb": weight_bytes(model) / 1e6,
            }
            | {key: figures[key] for key in kept}
        )
        print(
            f"{name:30}{rows[-1]['ratio']:6.2f} ({rows[-1]['ratio_without_shortcuts']:.2f} without shortcuts)"
            f"{rows[-1]['accuracy']:8.1%} of {figures['n']}{rows[-1]['weights_mb']:8.0f} MB",
            flush=True,
        )
    if options.output:
        command = " ".join(["python", "-m", "benchmarks.precision", *sys.argv[1:]])
        data = {"data": options.data, "seed": options.seed, "sha256": fingerprint(problems)}
        meta = describe_machine(plain) | data | {"weights_sha256": weights_sha256(options.model)}
        write_json(options.output, {"run": {"command": command}, "eval": rows, "meta": meta})


if __name__ == "__main__":
    main()
