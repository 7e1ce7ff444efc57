"""Writes what an evaluation found: results.json and report.md, each whole or not at all."""

import os
import tempfile
from pathlib import Path

from semcot.evaluation.judging import Row
from semcot.evaluation.tables import NOTES, describe, format_sections, format_tables
from semcot.evaluation.thoughts import Thoughts
from semcot.files import write_json, write_text

RESULTS = "results.json"


def prepare_output_dir(path: str | os.PathLike) -> Path:
    """Makes the folder, before anything is computed for it. Raises `OSError` when nothing can be written into it."""
    folder = Path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return folder
    except OSError as error:
        raise OSError(f"The results cannot be written into {folder}: {error}. Give another --output_dir.") from error


def write_report(folder: Path, record: Row, thoughts: Thoughts | None = None) -> None:
    """Writes the files; the record is that of `semcot.evaluation.evaluate.evaluate`."""
    first = record["eval"][0]
    write_json(folder / RESULTS, record)
    report = f"# {first['dataset']}\n\n```\n{record['run']['command']}\n```\n\n{describe(record)}\n\n"
    report += f"{format_tables(record)}\n{NOTES.format_map(first)}"
    sections = format_sections(record)
    write_text(folder / "report.md", report + (sections and f"\n{sections}\n"))
