"""
`transformers serve` for SemCoT checkpoints: `python -m semcot.serve CHECKPOINT --port 8000`, with all of that command's
options.

By itself the command takes only classes that transformers brings. With this one made known to it, chat, completions,
responses and streaming go through the thoughts. Needs `transformers[serving]`.
"""

import sys

import transformers
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM
from transformers.cli.transformers import app

from configuration_semcot import SemCoTConfig
from modeling_semcot import SemCoTForCausalLM


def main() -> None:
    AutoConfig.register(SemCoTConfig.model_type, SemCoTConfig)
    for auto_class in (AutoModel, AutoModelForCausalLM):
        auto_class.register(SemCoTConfig, SemCoTForCausalLM)
    # Where the command looks for the class that a checkpoint's config names.
    transformers.SemCoTForCausalLM = SemCoTForCausalLM
    app(["serve", *sys.argv[1:]])


if __name__ == "__main__":
    main()
