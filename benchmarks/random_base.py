"""
A base of SmolLM2-135M's sizes, or of others, with random weights, and SmolLM2's real tokenizer, both made from the
checkpoint of this repository: for measuring speed and memory where the base itself cannot be fetched.

    python -m benchmarks.random_base FOLDER [hidden_size=2048,num_hidden_layers=24]
"""

import argparse
import json
from pathlib import Path

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

from semcot.tokenization import THOUGHT_TOKEN

ROOT = Path(__file__).resolve().parents[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", help="where the base is written")
    parser.add_argument("sizes", nargs="?", default="", help="fields of its configuration that shall be others")
    options = parser.parse_args()
    config = AutoConfig.for_model(**json.loads((ROOT / "config.json").read_text())["text_config"])
    if options.sizes:
        config.update_from_string(options.sizes)
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).save_pretrained(options.folder)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(ROOT)
    # What the checkpoint's template has more than the base's is the thoughts, which training will add again.
    tokenizer.chat_template = tokenizer.chat_template.split("{% if add_generation_prompt %}{{ '" + THOUGHT_TOKEN)[0]
    tokenizer.save_pretrained(options.folder)


if __name__ == "__main__":
    main()
