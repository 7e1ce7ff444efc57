"""
The harness's own command, with the model `semcot` and these tasks made known to it:

    python -m semcot.lm_eval_tasks --model semcot --model_args pretrained=. --tasks semcot_multiarith
"""

import sys
from pathlib import Path

from lm_eval.__main__ import cli_evaluate

import semcot.lm_eval_tasks.model  # noqa: F401  registers it


def main() -> None:
    if not any(argument.startswith("--include_path") for argument in sys.argv):
        sys.argv += ["--include_path", str(Path(__file__).parent)]
    cli_evaluate()


if __name__ == "__main__":
    main()
