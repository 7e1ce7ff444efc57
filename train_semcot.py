"""
Trains a SemCoT checkpoint: `python train_semcot.py configs/default.yaml --output_dir runs/default`.

Stage 1 learns what a reasoning means, stage 2 teaches a generator to think it in K implicit tokens (arXiv 2510.24940,
section 4). The output folder is a loadable checkpoint; beside it stand the reasoning encoder, the options, the losses.

With `--method NAME` it trains a method to compare SemCoT with, for `eval_semcot.py --methods NAME=FOLDER`.
"""

import os
import sys

from accelerate import PartialState

from semcot.training import MethodOptions, parse_options, train, train_method

if __name__ == "__main__":
    options = parse_options()
    (train_method if isinstance(options, MethodOptions) else train)(options)
    state = PartialState()
    state.destroy_process_group()
    if not state.is_main_process:
        # All is saved. A communication thread that asks for Python while it shuts down aborts the process, rarely, and
        # torchrun would call the run a failure.
        sys.stdout.flush()
        os._exit(0)
