"""
Trains a SemCoT checkpoint: `python train_semcot.py configs/quickstart.yaml --output_dir runs/quickstart`.

Stage 1 learns what a reasoning means, stage 2 teaches a generator to think it in K implicit tokens (arXiv 2510.24940,
section 4). The output folder is a loadable checkpoint; beside it stand the reasoning encoder, the options, the losses.
"""

from accelerate import PartialState

from semcot.options import parse_options
from semcot.training import train

if __name__ == "__main__":
    train(parse_options())
    PartialState().destroy_process_group()  # else a process may abort as it ends, and take the others with it
