"""A training run: options, stages, records and the checkpoint at the end."""

from semcot.training.options import TrainOptions, parse_options
from semcot.training.run import train

__all__ = ["TrainOptions", "parse_options", "train"]
