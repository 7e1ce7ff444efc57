"""predictions.jsonl: an evaluation's answers, written as they come, and where an interrupted one goes on."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from semcot.evaluation.judging import Row
from semcot.files import write_text

PREDICTIONS = "predictions.jsonl"


class Predictions:
    """
    The answers in a folder's predictions.jsonl, one line for each, in the order of the problems of a method and seed.

    Args:
        folder: of the results.
        num_problems: of each seed.
        batch_size: of methods that are not through only whole batches are kept, so that all later ones are the same.

    Raises:
        ValueError: a line is no prediction. A last line that was cut short is dropped.
    """

    def __init__(self, folder: Path, num_problems: Mapping[int, int], batch_size: int) -> None:
        self.file = folder / PREDICTIONS
        self.rows: dict[tuple[str, int], list[Row]] = {}
        written = self.file.read_bytes() if self.file.exists() else b""  # may end within a character
        for number, line in enumerate(written.split(b"\n")[:-1], 1):
            try:
                row = json.loads(line)
                self.rows.setdefault((row["method"], row["seed"]), []).append(row)
            except (ValueError, KeyError, TypeError) as error:
                raise ValueError(
                    f"{self.file}, line {number} is no prediction of an evaluation ({error!r}). Give another "
                    "--output_dir, or --overwrite_output_dir True to start afresh."
                ) from error
        for (_, seed), rows in self.rows.items():
            if len(rows) < num_problems.get(seed, len(rows)):
                del rows[len(rows) // batch_size * batch_size :]
        kept = "".join(map(_line, self.all()))
        if kept.encode() != written:
            write_text(self.file, kept)

    def of(self, method: str, seed: int) -> list[Row]:
        """Those that are there of a method and seed."""
        return self.rows.setdefault((method, seed), [])

    def all(self) -> list[Row]:
        """Those that are there, in the order of the file."""
        return [row for rows in self.rows.values() for row in rows]

    def append(self, rows: list[Row]) -> None:
        """Writes those of a batch, and waits until they are on the disk."""
        with self.file.open("a", encoding="utf-8") as file:
            file.write("".join(map(_line, rows)))
            file.flush()
            os.fsync(file.fileno())
        for row in rows:
            self.of(row["method"], row["seed"]).append(row)


def check_same_evaluation(folder: Path, before: dict[str, Any], now: dict[str, Any]) -> None:
    """Raises `ValueError`, with what changed, unless an evaluation that is to go on was started as this one is."""
    changed = sorted(name for name in before.keys() | now.keys() if before.get(name) != now.get(name))
    if changed:
        raise ValueError(
            f"{folder} holds an evaluation that was started otherwise: "
            + ", ".join(f"{name} was {before.get(name)!r}, now {now.get(name)!r}" for name in changed)
            + ". Give the same to go on with it, another --output_dir, or --overwrite_output_dir True to start afresh."
        )


def _line(row: Row) -> str:
    return json.dumps(row, ensure_ascii=False) + "\n"
