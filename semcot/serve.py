"""
`transformers serve` with SemCoT checkpoints: `python -m semcot.serve CHECKPOINT` and the options of that command.

transformers 5.24 serves only classes of its own. Here the same command finds this one too, and all that it offers
(chat, completions, responses, streaming) goes through the thoughts.
"""

import sys

import transformers
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM
from transformers.cli.transformers import main as transformers_cli

from configuration_semcot import SemCoTConfig
from modeling_semcot import SemCoTForCausalLM


def main() -> None:
    AutoConfig.register(SemCoTConfig.model_type, SemCoTConfig, exist_ok=True)
    for auto_class in (AutoModel, AutoModelForCausalLM):
        auto_class.register(SemCoTConfig, SemCoTForCausalLM, exist_ok=True)
    setattr(transformers, SemCoTForCausalLM.__name__, SemCoTForCausalLM)  # where `serve` looks for a config's class
    sys.argv.insert(1, "serve")
    transformers_cli()


if __name__ == "__main__":
    main()
