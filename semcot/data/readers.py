"""Records from files, each brought to the four columns; the named data sets' own records are taken apart."""

import csv
import json
import re
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

from pyarrow import ArrowInvalid, parquet, types

from semcot.answers import answer_kind
from semcot.data.equations import exact, work_out, written
from semcot.tokenization import THOUGHT_TOKEN

COLUMNS = ("question", "reasoning", "condensed_reasoning", "answer")
_CALCULATOR = re.compile(r"<<([^<>\n]*)=([^<>\n]*)>>")  # GSM8K's annotations: 48/2 = <<48/2=24>>24
_TAGGED = re.compile(rf"{THOUGHT_TOKEN}(.*?)</thought>", re.DOTALL)

Row = dict[str, Any]


def read_file(path: Path) -> list[dict[str, str]]:
    """A file's problems, in four columns. Raises `ValueError`, with file and line, and `FileNotFoundError`."""
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    try:
        problems = [to_problem(row, f"{path}, {where}") for where, row in READERS[path.suffix.lower()](path)]
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


def to_problem(row: Any, where: str) -> dict[str, str]:
    """
    A record in four columns. Raises `ValueError`, which begins with `where`, for a record without question or answer,
    an answer that could not be judged, and a text that holds the thought token.
    """
    if not isinstance(row, dict):
        raise ValueError(f"{where}: must be an object with question and answer, not a {type(row).__name__}")
    row = _with_our_columns(row, where)
    if not row.get("condensed_reasoning") and isinstance(row.get("reasoning"), str):
        row = {**row, "condensed_reasoning": _annotated(row["reasoning"])}
    problem = {}
    for column in COLUMNS:
        value = row.get("query" if column == "question" and column not in row else column)
        if isinstance(value, bool) or not isinstance(value, str | int | float | Decimal | None):
            raise ValueError(f"{where}: {column} must be text or a number, not {value!r}")
        text = "" if value is None else _text(value)
        if column.endswith("reasoning"):
            text = _CALCULATOR.sub("", _TAGGED.sub(r"\1", text)).strip()
        if half := re.search("[\ud800-\udfff]", text):
            raise ValueError(f"{where}: {column} holds half a character, {half[0]!r}; mend or remove the record")
        if THOUGHT_TOKEN in text:
            raise ValueError(
                f"{where}: {column} holds {THOUGHT_TOKEN}, which marks the place of an implicit token; take it out. "
                f"(In a reasoning, the tags of {THOUGHT_TOKEN} … </thought> are passed over.)"
            )
        if not text and column in ("question", "answer"):
            raise ValueError(
                f"{where}: there is no {column}; fill it in or remove the record (its columns: {', '.join(row)})"
            )
        problem[column] = text
    try:
        answer_kind(problem["answer"])
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error
    return problem


def _annotated(reasoning: str) -> str:
    """
    The equations of a reasoning's annotations, one operation each: "100 - 50 = 50, 50 - 15 = 35" for <<100-50-15=35>>.
    "" where there are none, or one of them is not exact.
    """
    steps: list[str] = []
    for annotation in _CALCULATOR.findall(reasoning):
        expression, result = (re.sub(r"[$,\s]", "", side).replace("%", "/100") for side in annotation)
        if expression == result:
            continue
        try:
            steps += work_out(expression.replace("x", "*"))
            is_true = steps[-1].endswith(f" = {written(exact(result))}")
        except (ValueError, ZeroDivisionError):
            is_true = False
        if not is_true:
            return ""
    return ", ".join(steps)


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
