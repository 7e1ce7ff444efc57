"""
A page on which a checkpoint answers directly, with implicit tokens and with written reasoning, side by side: `python
app.py`, or `make app`. Needs `.[app]`.
"""

from dataclasses import dataclass, field
from pathlib import Path

from transformers import HfArgumentParser

from semcot.evaluation import load_model
from semcot.fetch_base import DEFAULT_OUTPUT_DIR, fetch
from semcot.serving.comparison import Comparison

try:
    from semcot.serving.page import build_page, launch_options
except ModuleNotFoundError as error:
    if error.name != "gradio":
        raise
    raise SystemExit("app.py needs Gradio: pip install '.[app]'") from error

CLONE = Path(__file__).parent


@dataclass
class AppOptions:
    """Options of `python app.py`."""

    model: str = field(default=str(CLONE), metadata={"help": "The checkpoint; the clone's own by default."})
    device: str | None = field(default=None, metadata={"help": "cpu or cuda; CUDA where there is one by default."})
    host: str | None = field(default=None, metadata={"help": "The address to listen on; loopback by default."})
    port: int | None = field(default=None, metadata={"help": "The port; the first free one from 7860 by default."})


def main() -> None:
    options = HfArgumentParser(AppOptions, allow_abbrev=False).parse_args_into_dataclasses()[0]
    if options.model == str(CLONE):
        fetch(CLONE / DEFAULT_OUTPUT_DIR)  # the weights that it was trained on, which the Hub's are not
    comparison = Comparison(*load_model(options.model, options.device))
    page = build_page(comparison, "of this repository" if options.model == str(CLONE) else options.model)
    page.launch(server_name=options.host, server_port=options.port, **launch_options())


if __name__ == "__main__":
    main()
