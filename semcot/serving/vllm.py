"""
A vLLM server for a SemCoT checkpoint: `python -m semcot.serving.vllm --model CHECKPOINT --port 8000`, with all options
of `vllm serve` (`--tensor-parallel-size`, `--api-key`, …).

vLLM serves the base, as it is, and the generator thinks in the server's own process (`semcot/serving/thinking.py`).
"""

import argparse
import json
import os
import sys

import torch

CHAT_TEMPLATE = "{{ messages[0]['content'] }}"
"""The engine's: prompts come rendered, by the checkpoint's own."""


def parse(arguments: list[str]) -> tuple[dict[str, str | None], list[str]]:
    """What loads the checkpoint, and what vLLM is told beside."""
    parser = argparse.ArgumentParser(
        "semcot.serving.vllm",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--model", required=True, help="a SemCoT checkpoint, a folder or a Hub id")
    parser.add_argument("--base-model", "--base_model", help="its base, if it is not to be looked for")
    dtype = "bfloat16" if torch.cuda.is_available() else "float32"
    parser.add_argument("--dtype", default=dtype, help="of generator and base; here %(default)s by default")
    options, others = parser.parse_known_args(arguments)
    return vars(options), others


def serve_arguments(checkpoint: dict[str, str | None], base: str, others: list[str]) -> list[str]:
    """Those of `vllm serve`."""
    return [
        *("serve", base, "--dtype", checkpoint["dtype"], "--served-model-name", checkpoint["model"]),
        *others,
        *("--enable-prompt-embeds", "--middleware", "semcot.serving.thinking.Thinking"),
        *("--chat-template", CHAT_TEMPLATE, "--chat-template-content-format", "string"),
        *("--generation-config", "vllm"),  # no defaults of the base: a penalty would need the prompt's tokens
    ]


def main() -> None:
    checkpoint, others = parse(sys.argv[1:])
    try:
        from vllm.entrypoints.cli.serve import ServeSubcommand
        from vllm.utils.argparse_utils import FlexibleArgumentParser
    except ImportError as error:
        sys.exit(f"vLLM cannot be imported ({error}): pip install vllm, in an environment of its own.")

    from semcot.serving.thinking import CHECKPOINT_VARIABLE, served_thinker

    os.environ[CHECKPOINT_VARIABLE] = json.dumps(checkpoint)
    os.environ.setdefault("VLLM_WORKER_MULTIPROC_METHOD", "spawn")  # as `vllm serve` does
    base = served_thinker().base_model  # before the engine starts, which takes longer
    if not base:
        sys.exit(f"{checkpoint['model']} does not name its base; vLLM needs the base's folder or Hub id.")
    command, parser = ServeSubcommand(), FlexibleArgumentParser()
    command.subparser_init(parser.add_subparsers())
    arguments = parser.parse_args(serve_arguments(checkpoint, base, others))
    command.validate(arguments)
    command.cmd(arguments)


if __name__ == "__main__":
    main()
