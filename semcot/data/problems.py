"""Problems from the Hub, from local files or drawn afresh, all in one form.

A problem has a question, the reasoning that leads to its answer, that reasoning condensed, and the answer: four
strings, `COLUMNS`. Where a source has no reasoning or no condensed reasoning, that column holds "".
"""

import hashlib
import json
import math
import os
import random
import re
import warnings
from collections.abc import Collection, Mapping
from pathlib import Path

from datasets import Dataset, Features, Value, load_dataset

from semcot.data.coin_flip import coin_flips
from semcot.data.drawing import SPLITS
from semcot.data.expressions import arithmetic_expressions, arithmetic_sums
from semcot.data.readers import COLUMNS, READERS, read_file, to_problem
from semcot.data.school import arithmetic_school
from semcot.data.stories import arithmetic_shapes, arithmetic_stories
from semcot.data.templates import augment, masked
from semcot.data.variations import arithmetic_variations

HUB_DATASETS = {
    "multiarith": "ChilleD/MultiArith",
    "gsm8k": "openai/gsm8k",
    "svamp": "ChilleD/SVAMP",
    "commonsense_qa": "tau/commonsense_qa",
    "coin_flip": "skrishna/coin_flip",
}
SYNTHETIC_DATASETS = {
    "synthetic_arithmetic": arithmetic_stories,
    "synthetic_shapes": arithmetic_shapes,
    "synthetic_variations": arithmetic_variations,
    "synthetic_school": arithmetic_school,
    "synthetic_expressions": arithmetic_expressions,
    "synthetic_sums": arithmetic_sums,
    "synthetic_coin_flip": coin_flips,
}
_SIZED = re.compile(r"(?P<name>\w+):(?P<low>\d+)(?:-(?P<high>\d+))?")
AUGMENTED = "augmented:"  # before the name or file of a real data set: variants of its train problems
COIN_FLIP_PEOPLE = {"train": 2, "eval": 4}  # the paper trains on two people and tests on four


def load_problems(
    name_or_file: str | os.PathLike, split: str = "train", *, num_samples: int | None = None, seed: int = 0
) -> Dataset:
    """Loads problems by the name of a data set or from a file.

    Args:
        name_or_file: a name (multiarith, gsm8k, svamp, commonsense_qa, coin_flip, synthetic_arithmetic,
            synthetic_shapes, synthetic_variations, synthetic_school, synthetic_expressions, synthetic_sums,
            synthetic_coin_flip) or the path of a .json (a list of objects), .jsonl, .csv or .parquet file. The column
            `query` is taken for `question`, the named sets' own records are taken apart, and other columns are dropped.
            "augmented:" before a name or file draws variants of its train split, see [`augment`]. Behind a synthetic
            set's name may stand how many steps or people its problems have: synthetic_arithmetic:3,
            synthetic_coin_flip:1-2.
        split: "train" or "eval". A named data set has both: they are read from the folder that the environment
            variable SEMCOT_DATA_DIR names, as NAME/train.json and NAME/eval.json, or else from the Hub, where "eval" is
            the test split (for commonsense_qa, whose test split has no answers, the validation split). A file is taken
            whole, whatever the split.
        num_samples: synthetic and augmented problems: how many to draw (1000). Otherwise only the first so many, in
            file order.
        seed: of the draw of synthetic and augmented problems.

    Returns:
        The problems, with the columns `COLUMNS`, all strings.

    Raises:
        ValueError: an unknown name, split, kind of file or column; a record that [`to_problem`] refuses.
        FileNotFoundError: no such file, or the data set is neither in SEMCOT_DATA_DIR nor on a reachable Hub.
    """
    name = os.fspath(name_or_file)
    if split not in SPLITS:
        raise ValueError(f"split is {split!r}; known splits: {', '.join(SPLITS)}")
    if num_samples is not None and num_samples < 1:
        raise ValueError(f"num_samples is {num_samples}; give at least 1, or None")
    drawn = 1000 if num_samples is None else num_samples
    sized = _SIZED.fullmatch(name)
    synthetic = sized["name"] if sized else name
    if synthetic in SYNTHETIC_DATASETS:
        size = [(int(sized["low"]), int(sized["high"] or sized["low"]))] if sized else []
        return _to_dataset(list(SYNTHETIC_DATASETS[synthetic](drawn, seed, *size, split=split)))
    if name.startswith(AUGMENTED):
        real = load_problems(name.removeprefix(AUGMENTED), "train").to_list()
        return _to_dataset(list(augment(real, drawn, seed, split)))
    if name in HUB_DATASETS:
        return _to_dataset(_load_named(name, split)[:num_samples])
    path = Path(name)
    if path.suffix.lower() not in READERS:
        known = ", ".join([*HUB_DATASETS, *SYNTHETIC_DATASETS])
        raise ValueError(f"{name!r} is no known data set ({known}) and no file ending in {', '.join(READERS)}")
    return _to_dataset(read_file(path)[:num_samples])


def split_validation(
    dataset: Dataset, fraction: float, seed: int, by_template: bool = False, parted: Mapping[str, bool] | None = None
) -> tuple[Dataset, Dataset]:
    """Parts a data set into (train, validation).

    Args:
        dataset: problems.
        fraction: how much of it goes to validation, between 0 and 1.
        seed: the seed of the choice.
        by_template: all problems that are the same when [`masked`] go to one part, so that validation tells how others'
            wordings are answered. It has as many as fit into the fraction; where no template does, since few are told
            again and again, the problems are parted one by one, with a warning.
        parted: templates that were parted before, and whether they were held out: they go where they went, even where
            those held out are more than the fraction.

    Raises:
        ValueError: nothing would be left for one of the parts.
    """
    wanted = math.ceil(fraction * len(dataset))
    if not 0 < wanted < len(dataset):
        raise ValueError(
            f"{len(dataset)} problems cannot be parted into train and validation with validation_fraction {fraction}: "
            "each needs at least one. Give more data or another validation_fraction."
        )
    groups: dict[object, list[int]] = {}
    for i, question in enumerate(dataset["question"]) if by_template else ():
        groups.setdefault(masked(question), []).append(i)
    parted = parted or {}
    held_out = [i for template, rows in groups.items() if parted.get(template) for i in rows]
    if by_template and not held_out and min(map(len, groups.values())) > wanted:
        warnings.warn(
            f"The {len(dataset)} problems have {len(groups)} templates, none of so few that validation_fraction "
            f"{fraction} could hold it: validation shares them with train.",
            stacklevel=2,
        )
        by_template = False
    if not by_template:
        parts = dataset.train_test_split(test_size=float(fraction), seed=seed)
        return parts["train"], parts["test"]
    for template, rows in random.Random(seed).sample(list(groups.items()), len(groups)):
        if template not in parted and len(held_out) + len(rows) <= wanted:
            held_out += rows
    held_out.sort()
    rest = sorted({*range(len(dataset))}.difference(held_out))
    return dataset.select(rest), dataset.select(held_out)


def split_steps(condensed_reasoning: str) -> list[str]:
    """The steps of "3 + 8 = 11, 11 - 9 = 2", which are parted by a comma or semicolon and a space."""
    return re.split(r"[,;]\s+", condensed_reasoning)


def fingerprint(problems: Dataset) -> str:
    """SHA-256 of the problems in their order: the same for the same ones, wherever they come from."""
    digest = hashlib.sha256()
    for row in problems.select_columns(COLUMNS):
        digest.update(json.dumps([row[column] for column in COLUMNS]).encode())
    return digest.hexdigest()


def without_repeats(dataset: Dataset) -> Dataset:
    """The data set less the problems whose question, whatever its case and white space, came before."""
    first = {normalise_question(question): i for i, question in reversed(list(enumerate(dataset["question"])))}
    return dataset.select(sorted(first.values()))


def shared_questions(train: Dataset, evaluation: Dataset) -> set[str]:
    """The questions, normalised in case and white space, that stand in both data sets."""
    return _normalised(train["question"]) & _normalised(evaluation["question"])


def without(dataset: Dataset, questions: Collection[str]) -> Dataset:
    """The data set less the problems with one of these questions, whatever their case and white space."""
    unwanted = _normalised(questions)
    questions = enumerate(dataset["question"])
    return dataset.select([i for i, question in questions if normalise_question(question) not in unwanted])


def normalise_question(question: str) -> str:
    """A question whatever its case and white space: the same for those that differ in these alone."""
    return " ".join(question.lower().split())


def _normalised(questions: Collection[str]) -> set[str]:
    return {normalise_question(question) for question in questions}


def _to_dataset(problems: list[dict[str, str]]) -> Dataset:
    return Dataset.from_list(problems, features=Features({column: Value("string") for column in COLUMNS}))


def _load_named(name: str, split: str) -> list[dict[str, str]]:
    folder = os.environ.get("SEMCOT_DATA_DIR")
    file = Path(folder or "", name, f"{split}.json")
    if folder and file.exists():
        problems = read_file(file)
    else:
        hub_split = split if split == "train" else "validation" if name == "commonsense_qa" else "test"
        try:
            rows = load_dataset(HUB_DATASETS[name], "main" if name == "gsm8k" else None, split=hub_split)
        except OSError as error:
            tried = f"there is no {file}" if folder else "SEMCOT_DATA_DIR is not set"
            raise FileNotFoundError(
                f"{name} ({split}) was not found: {tried}, and {HUB_DATASETS[name]} could not be loaded from the Hub "
                f"({error}). Go online, or set SEMCOT_DATA_DIR to a folder that holds {name}/{split}.json."
            ) from error
        source = f"{HUB_DATASETS[name]} ({hub_split})"
        problems = [to_problem(row, f"{source}, row {i}") for i, row in enumerate(rows, 1)]
        if name == "coin_flip":
            people = COIN_FLIP_PEOPLE[split]
            problems = [p for p in problems if len(re.findall(r"flips? the coin\.", p["question"])) == people]
            if not problems:
                raise ValueError(f"{source} has no problem with {people} people; give a local file instead")
    return problems
