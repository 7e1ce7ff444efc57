"""report.html, which needs nothing but itself, and its plots as PNG; the template is `report.html.jinja` beside it."""

import base64
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

from jinja2 import Environment
from matplotlib.figure import Figure

from semcot.evaluation.judging import Row
from semcot.evaluation.plots import Plot, draw
from semcot.evaluation.tables import Section, cells, describe, sections
from semcot.evaluation.thoughts import Thoughts
from semcot.files import whole, write_text

TEMPLATE = Path(__file__).with_name("report.html.jinja")
DPI = 200


def write_page(folder: Path, record: Row, predictions: Sequence[Row], thoughts: Thoughts | None) -> None:
    """Writes report.html and plots/*.png; the predictions of the first seed are shown one by one."""
    page = render(
        title=record["eval"][0]["dataset"],
        described=describe(record).replace("`", ""),
        command=record["run"]["command"],
        sections=sections(record),
        plots=write_plots(folder / "plots", draw(record, thoughts)),
        problems=_problems(predictions, thoughts),
    )
    write_text(folder / "report.html", page)


def write_plots(folder: Path, plots: Mapping[str, Plot]) -> dict[str, dict[str, str]]:
    """Writes the plots as NAME.png; returns of each what a page shows: `caption`, and `data` in base64."""
    shown = {}
    for name, (caption, figure) in plots.items():
        image = _png(figure)
        with whole(folder / f"{name}.png") as file:
            file.write_bytes(image)
        shown[name] = {"caption": caption, "data": base64.b64encode(image).decode()}
    return shown


def render(
    title: str,
    described: str,
    command: str,
    sections: Sequence[Section],
    plots: Mapping[str, Mapping[str, str]],
    problems: Sequence[Row] = (),
) -> str:
    """A page of sections, the last of them the terms, in HTML; `problems` are shown one by one, where there are any."""
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        title=title,
        described=described,
        command=command,
        sections=sections,
        cells=cells,
        plots=plots,
        problems=problems,
    )


def _problems(predictions: Sequence[Row], thoughts: Thoughts | None) -> list[Row]:
    """Each question with the gold answer, each method's answer, and what SemCoT's thoughts spell."""
    of_method: dict[str, list[Row]] = {}
    for row in predictions:
        of_method.setdefault(row["method"], []).append(row)
    found = []
    for rows in zip(*of_method.values(), strict=True):  # by place: the same question may stand at several
        answers = [
            {"method": row["method"], "output": row["output"], "parsed": row["parsed"], "right": row["correct"]}
            for row in rows
        ]
        found.append({"question": rows[0]["question"], "gold": rows[0]["gold"], "answers": answers})
    for problem, row in zip(found, thoughts.rows if thoughts else (), strict=False):
        problem |= {"thoughts": row["thoughts"], "spells": row["spells_result"]}
    return found


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI)
    return buffer.getvalue()
