"""A training run: options, stages, records and the checkpoint at the end."""

from semcot.training.method import train_method
from semcot.training.options import MethodOptions, TrainOptions, parse_options
from semcot.training.run import train

__all__ = ["MethodOptions", "TrainOptions", "parse_options", "train", "train_method"]
