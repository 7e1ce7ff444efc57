"""Problems from the Hub, from local files or drawn afresh, all in one form.

A problem has a question, the reasoning that leads to its answer, that reasoning condensed, and the answer: four
strings, `COLUMNS`. Where a source has no reasoning or no condensed reasoning, that column holds "".
"""

import csv
import hashlib
import json
import math
import os
import re
from collections.abc import Callable, Collection, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

from datasets import Dataset, Features, Value, load_dataset
from pyarrow import ArrowInvalid, parquet, types

from semcot.answers import answer_kind
from semcot.renumbered import renumbered
from semcot.synthetic import (
    SPLITS,
    arithmetic_drills,
    arithmetic_expressions,
    arithmetic_shapes,
    arithmetic_stories,
    coin_flips,
)
from semcot.tokenization import THOUGHT_TOKEN
from semcot.variations import arithmetic_variations

COLUMNS = ("question", "reasoning", "condensed_reasoning", "answer")
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
    "synthetic_expressions": arithmetic_expressions,
    "synthetic_drills": arithmetic_drills,
    "synthetic_coin_flip": coin_flips,
}
_SIZED = re.compile(r"(?P<name>\w+):(?P<low>\d+)(?:-(?P<high>\d+))?")
RENUMBERED = "renumbered:"  # before the name or file of a real data set: its train problems with other numbers
_CALCULATOR = re.compile(r"<<[^<>\n]*=[^<>\n]*>>")  # GSM8K's annotations: 48/2 = <<48/2=24>>24
_TAGGED = re.compile(rf"{THOUGHT_TOKEN}(.*?)</thought>", re.DOTALL)
COIN_FLIP_PEOPLE = {"train": 2, "eval": 4}  # the paper trains on two people and tests on four

Row = dict[str, Any]


def load_problems(
    name_or_file: str | os.PathLike,
    split: str = "train",
    *,
    num_samples: int | None = None,
    seed: int = 0,
    **options: Any,
) -> Dataset:
    """Loads problems by the name of a data set or from a file.

    Args:
        name_or_file: a name (multiarith, gsm8k, svamp, commonsense_qa, coin_flip, synthetic_arithmetic,
            synthetic_shapes, synthetic_variations, synthetic_expressions, synthetic_drills, synthetic_coin_flip) or the
            path of a .json (a list of objects), .jsonl, .csv or .parquet file. The column `query` is taken for
            `question`; other columns are dropped. "renumbered:" before a name or file draws problems like those of its
            train split, see `semcot.renumbered`. Behind a synthetic set's name may stand how many steps or people its
            problems have: synthetic_arithmetic:3, synthetic_coin_flip:1-2.
        split: "train" or "eval". A named data set has both: they are read from the folder that the environment
            variable SEMCOT_DATA_DIR names, as NAME/train.json and NAME/eval.json, or else from the Hub, where "eval" is
            the test split (for commonsense_qa, whose test split has no answers, the validation split). A file is taken
            whole, whatever the split.
        num_samples: synthetic and renumbered problems: how many to draw (1000). Otherwise only the first so many, in
            file order.
        seed: of the draw of synthetic and renumbered problems.
        options: for synthetic problems: `steps` (arithmetic) or `people` (coin flips), see `semcot.synthetic`; these
            override what the name says.

    Returns:
        The problems, with the columns `COLUMNS`, all strings.

    Raises:
        ValueError: an unknown name, split, kind of file or column; a record without question or answer.
        FileNotFoundError: no such file, or the data set is neither in SEMCOT_DATA_DIR nor on a reachable Hub.
    """
    name = os.fspath(name_or_file)
    if split not in SPLITS:
        raise ValueError(f"split is {split!r}; known splits: {', '.join(SPLITS)}")
    if num_samples is not None and num_samples < 1:
        raise ValueError(f"num_samples is {num_samples}; give at least 1, or None")
    if (sized := _SIZED.fullmatch(name)) and sized["name"] in SYNTHETIC_DATASETS:
        size = int(sized["low"]), int(sized["high"] or sized["low"])
        name, options = sized["name"], {"people" if "coin_flip" in name else "steps": size, **options}
    if name in SYNTHETIC_DATASETS:
        draw = SYNTHETIC_DATASETS[name]
        return _to_dataset(list(draw(1000 if num_samples is None else num_samples, seed, split=split, **options)))
    if options:
        *names, last = SYNTHETIC_DATASETS
        raise ValueError(f"{', '.join(options)}: only for {', '.join(names)} and {last}, not for {name}")
    if name.startswith(RENUMBERED):
        real = load_problems(name.removeprefix(RENUMBERED), "train").to_list()
        return _to_dataset(list(renumbered(real, 1000 if num_samples is None else num_samples, seed, split)))
    if name in HUB_DATASETS:
        return _to_dataset(_load_named(name, split)[:num_samples])
    path = Path(name)
    if path.suffix.lower() not in READERS:
        known = ", ".join([*HUB_DATASETS, *SYNTHETIC_DATASETS])
        raise ValueError(f"{name!r} is no known data set ({known}) and no file ending in {', '.join(READERS)}")
    return _to_dataset(_load_file(path)[:num_samples])


def split_validation(dataset: Dataset, fraction: float, seed: int) -> tuple[Dataset, Dataset]:
    """
    Parts a data set into (train, validation); `fraction`, between 0 and 1, of it goes to validation. Raises
    `ValueError` where nothing would be left for one of them.
    """
    if not 0 < math.ceil(fraction * len(dataset)) < len(dataset):
        raise ValueError(
            f"{len(dataset)} problems cannot be parted into train and validation with validation_fraction {fraction}: "
            "each needs at least one. Give more data or another validation_fraction."
        )
    parts = dataset.train_test_split(test_size=float(fraction), seed=seed)
    return parts["train"], parts["test"]


def fingerprint(problems: Dataset) -> str:
    """SHA-256 of the problems in their order: the same for the same ones, wherever they come from."""
    digest = hashlib.sha256()
    for row in problems.select_columns(COLUMNS):
        digest.update(json.dumps([row[column] for column in COLUMNS]).encode())
    return digest.hexdigest()


def without_repeats(dataset: Dataset) -> Dataset:
    """The data set less the problems whose question, whatever its case and white space, came before."""
    first = {_normalise(question): i for i, question in reversed(list(enumerate(dataset["question"])))}
    return dataset.select(sorted(first.values()))


def shared_questions(train: Dataset, evaluation: Dataset) -> set[str]:
    """The questions, normalised in case and white space, that stand in both data sets."""
    return _normalised(train["question"]) & _normalised(evaluation["question"])


def without(dataset: Dataset, questions: Collection[str]) -> Dataset:
    """The data set less the problems with one of these questions, whatever their case and white space."""
    unwanted = _normalised(questions)
    return dataset.select([i for i, question in enumerate(dataset["question"]) if _normalise(question) not in unwanted])


def _normalise(question: str) -> str:
    return " ".join(question.lower().split())


def _normalised(questions: Collection[str]) -> set[str]:
    return {_normalise(question) for question in questions}


def _to_dataset(problems: list[dict[str, str]]) -> Dataset:
    return Dataset.from_list(problems, features=Features({column: Value("string") for column in COLUMNS}))


def _load_named(name: str, split: str) -> list[dict[str, str]]:
    folder = os.environ.get("SEMCOT_DATA_DIR")
    file = Path(folder or "", name, f"{split}.json")
    if folder and file.exists():
        problems = _load_file(file)
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
        problems = [_to_problem(row, f"{source}, row {i}") for i, row in enumerate(rows, 1)]
        if name == "coin_flip":
            people = COIN_FLIP_PEOPLE[split]
            problems = [p for p in problems if len(re.findall(r"flips? the coin\.", p["question"])) == people]
            if not problems:
                raise ValueError(f"{source} has no problem with {people} people; give a local file instead")
    return problems


def _load_file(path: Path) -> list[dict[str, str]]:
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    try:
        problems = [_to_problem(row, f"{path}, {where}") for where, row in READERS[path.suffix.lower()](path)]
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 text: {error}") from error
    if not problems:
        raise ValueError(f"{path} holds no problem")
    return problems


def _parse_json(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"{where} is not JSON: {error}") from error


def _read_json(path: Path) -> Iterator[tuple[str, Row]]:
    rows = _parse_json(path.read_text("utf-8-sig"), str(path))
    if not isinstance(rows, list):
        raise ValueError(f"{path} must hold a list of objects, not a {type(rows).__name__}; one object a line: .jsonl")
    for number, row in enumerate(rows, 1):
        yield f"record {number}", row


def _read_jsonl(path: Path) -> Iterator[tuple[str, Row]]:
    with path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                yield f"line {number}", _parse_json(line, f"{path}, line {number},")


def _read_csv(path: Path) -> Iterator[tuple[str, Row]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        csv.field_size_limit(2**30)  # a long reasoning is no error
        reader, line = csv.reader(file, strict=True), 1
        try:
            header = next(reader, [])
            line = reader.line_num + 1
            for cells in reader:
                if len(cells) > len(header):
                    raise ValueError(
                        f"{path}, line {line}, has more cells than the header; quote cells that hold a comma"
                    )
                if cells:
                    yield f"line {line}", dict(zip(header, cells, strict=False))
                line = reader.line_num + 1
        except csv.Error as error:
            raise ValueError(
                f"{path}, the record at line {line}: {error}. Quote a cell that holds a quotation mark, and double it."
            ) from error


def _read_parquet(path: Path) -> Iterator[tuple[str, Row]]:
    try:
        table = parquet.read_table(path)
    except ArrowInvalid as error:
        raise ValueError(f"{path} is not Parquet: {error}") from error
    floats = {field.name: field.type.to_pandas_dtype() for field in table.schema if types.is_floating(field.type)}
    for number, row in enumerate(table.to_pylist(), 1):
        for name, dtype in floats.items():
            # A narrow 0.4 is 0.4000000059604645 as a Python number: its shortest text in its own precision is meant.
            if row[name] is not None and not row[name].is_integer():
                row[name] = float(str(dtype(row[name])))
        yield f"row {number}", row


READERS = {".json": _read_json, ".jsonl": _read_jsonl, ".csv": _read_csv, ".parquet": _read_parquet}


def _to_problem(row: Any, where: str) -> dict[str, str]:
    """One record with our columns; `where` names its source in an error."""
    if not isinstance(row, dict):
        raise ValueError(f"{where}: must be an object with question and answer, not a {type(row).__name__}")
    row = _with_our_columns(row, where)
    problem = {}
    for column in COLUMNS:
        value = row.get("query" if column == "question" and column not in row else column)
        if isinstance(value, bool) or not isinstance(value, str | int | float | Decimal | None):
            raise ValueError(f"{where}: {column} must be text or a number, not {value!r}")
        problem[column] = "" if value is None else _text(value)
        if column.endswith("reasoning"):
            plain = _CALCULATOR.sub("", _TAGGED.sub(r"\1", problem[column]))
            problem[column] = plain.strip()
        if half := re.search("[\ud800-\udfff]", problem[column]):
            raise ValueError(f"{where}: {column} holds half a character, {half[0]!r}; mend or remove the record")
        if THOUGHT_TOKEN in problem[column]:
            raise ValueError(
                f"{where}: {column} holds {THOUGHT_TOKEN}, which marks the place of an implicit token; take it out. "
                f"(In a reasoning, the tags of {THOUGHT_TOKEN} … </thought> are passed over.)"
            )
        if not problem[column] and column in ("question", "answer"):
            raise ValueError(
                f"{where}: there is no {column}; fill it in or remove the record (its columns: {', '.join(row)})"
            )
    try:
        answer_kind(problem["answer"])
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error
    return problem


def _with_our_columns(row: Row, where: str) -> Row:
    """A record of one of the named data sets, as published or as on the Hub, with our columns; others as they are."""
    if isinstance(answer := row.get("answer"), str) and "####" in answer:
        reasoning, _, answer = answer.rpartition("####")
        return {**row, "reasoning": row.get("reasoning") or reasoning, "answer": answer}
    convert = next((convert for columns, convert in _PUBLISHED.items() if row.keys() >= set(columns.split())), None)
    if "answer" in row or not convert:
        return row
    try:
        return {**row, **convert(row)}
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        raise ValueError(f"{where}: cannot be read as the data set's record that it looks like: {error!r}") from error


def _from_svamp(row: Row) -> Row:
    answer = _text(float(row["Answer"]))
    question = f"{row['Body'].strip()} {row['Question'].strip()}"
    return {"question": question, "reasoning": f"{row['Equation']} = {answer}", "answer": answer}


def _from_multiarith(row: Row) -> Row:
    (equation,), (answer,) = row["lEquations"], row["lSolutions"]
    reasoning = f"{equation.partition('=')[2].strip()} = {_text(answer)}"
    return {"question": row["sQuestion"], "reasoning": reasoning, "answer": answer}


def _from_commonsense_qa(row: Row) -> Row:
    if isinstance(row["question"], dict):  # as published
        question = row["question"]["stem"]
        choices = [(choice["label"], choice["text"]) for choice in row["question"]["choices"]]
    else:
        question, choices = row["question"], zip(row["choices"]["label"], row["choices"]["text"], strict=True)
    lines = [question, "Choices:", *(f"{label}. {text}" for label, text in choices)]
    return {"question": "\n".join(lines), "answer": row["answerKey"]}


_PUBLISHED: dict[str, Callable[[Row], Row]] = {
    "Body Question Equation Answer": _from_svamp,
    "sQuestion lEquations lSolutions": _from_multiarith,
    "question final_ans": lambda row: {"answer": row["final_ans"]},  # MultiArith on the Hub
    "question answerKey": _from_commonsense_qa,
    "inputs targets": lambda row: {"question": row["inputs"], "answer": row["targets"]},  # coin flips
}
"""By the columns that tell them, the named data sets' own records; GSM8K's are told by their answers."""


def _text(value: str | int | float | Decimal) -> str:
    """Text without surrounding white space; a whole number as "72", never "72.0"; not a number as ""."""
    if isinstance(value, Decimal):
        whole, point, decimals = f"{value:f}".partition(".")
        return (whole + point + decimals.rstrip("0")).removesuffix(".")
    if isinstance(value, float):
        return "" if value != value else str(int(value)) if value.is_integer() else str(value)
    return str(value).strip()
