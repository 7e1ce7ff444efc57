"""Writes what an evaluation found: results.json and report.md, each whole or not at all."""

import os
import tempfile
from pathlib import Path

from semcot.evaluation.judging import Row
from semcot.evaluation.tables import describe, sections
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


def write_report(folder: Path, record: Row) -> None:
    """Writes the files; the record is that of `semcot.evaluation.evaluate.evaluate`."""
    title = f"# {record['eval'][0]['dataset']}\n\n```\n{record['run']['command']}\n```\n\n{describe(record)}"
    report = "\n\n".join([title, *(section.format() for section in sections(record))])
    write_json(folder / RESULTS, record)
    write_text(folder / "report.md", report + "\n")
