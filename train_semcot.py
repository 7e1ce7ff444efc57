"""
Trains a SemCoT checkpoint: `python train_semcot.py configs/quickstart.yaml --output_dir runs/quickstart`.

Stage 1 learns what a reasoning means, stage 2 teaches a generator to think it in K implicit tokens (arXiv 2510.24940,
section 4). The output folder is a loadable checkpoint; beside it stand the reasoning encoder, the options, the losses.
"""

import os
import sys

from accelerate import PartialState

from semcot.training import train
from semcot.training.options import parse_options

if __name__ == "__main__":
    train(parse_options())
    state = PartialState()
    state.destroy_process_group()
    if not state.is_main_process:
        # All is saved. A communication thread that asks for Python while it shuts down aborts the process, rarely, and
        # torchrun would call the run a failure.
        sys.stdout.flush()
        os._exit(0)
