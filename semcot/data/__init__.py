"""
Problems: from the Hub, from files, or drawn afresh: stories, expressions, coin flips, and variants of real problems.
"""

from semcot.data.coin_flip import coin_flips
from semcot.data.drawing import SPLITS, in_eval
from semcot.data.equations import Equation
from semcot.data.expressions import arithmetic_expressions, arithmetic_sums
from semcot.data.problems import (
    AUGMENTED,
    HUB_DATASETS,
    fingerprint,
    load_problems,
    normalise_question,
    shared_questions,
    split_steps,
    split_validation,
    without,
    without_repeats,
)
from semcot.data.readers import COLUMNS, READERS
from semcot.data.school import arithmetic_school
from semcot.data.stories import arithmetic_shapes, arithmetic_stories
from semcot.data.templates import augment, find_template, find_templates, masked, with_other_numbers, worked_steps
from semcot.data.variations import arithmetic_variations

__all__ = [
    "AUGMENTED",
    "COLUMNS",
    "Equation",
    "HUB_DATASETS",
    "READERS",
    "SPLITS",
    "arithmetic_expressions",
    "arithmetic_school",
    "arithmetic_shapes",
    "arithmetic_stories",
    "arithmetic_sums",
    "arithmetic_variations",
    "augment",
    "coin_flips",
    "find_template",
    "find_templates",
    "fingerprint",
    "in_eval",
    "load_problems",
    "masked",
    "normalise_question",
    "shared_questions",
    "split_steps",
    "split_validation",
    "with_other_numbers",
    "without",
    "without_repeats",
    "worked_steps",
]
