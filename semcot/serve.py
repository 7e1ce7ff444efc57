"""
`transformers serve` for SemCoT checkpoints: `python -m semcot.serve CHECKPOINT --port 8000`, with that command's
options and those of `--help`.

By itself the command takes only classes that transformers brings, and answers one request after the other. With this
one made known to it, chat, completions, responses and streaming go through the thoughts; requests that wait together
are answered together (semcot/serving/batching.py); what cannot be answered is refused with a status and a sentence.
Routes that load other models are left out. SIGTERM ends it when those who wait have their answers.
"""

import argparse
import os
import sys
from collections.abc import Callable
from dataclasses import fields
from functools import partial

import transformers
import uvicorn
from jinja2 import TemplateError
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.responses import Response
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM
from transformers.cli.serving import server, utils
from transformers.cli.transformers import app

from configuration_semcot import SemCoTConfig
from modeling_semcot import SemCoTForCausalLM
from semcot.serving.batching import SEED, BatchingManager, Limits, QueueFullError, RefusedError
from semcot.serving.gate import Gate, refusal

PATHS = ["/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/models", "/health", "/metrics"]
FIELDS = set(
    "model messages prompt suffix input instructions stream max_tokens max_completion_tokens max_output_tokens "
    "temperature top_p frequency_penalty logit_bias stop seed generation_config".split()
)
"""What a request may ask. Other fields would be passed by, or would reach the chat template."""
NO_MATTER = {"user", "metadata", "store", "service_tier", "stream_options"}
"""Fields that ask for nothing that would change an answer."""
NOTHING = {"n": 1, "best_of": 1, "echo": False, "logprobs": False, "presence_penalty": 0, "parallel_tool_calls": True}
"""Fields that ask for something that is not served, but for these values, which ask for nothing."""
MALFORMED = (KeyError, TypeError, ValueError, AttributeError, OverflowError, IndexError, TemplateError)


def checked(handle: Callable) -> Callable:
    """A handler of the command's that says of a request what is wrong with it, where that is not the server."""

    async def checked_handle(body: dict, request_id: str) -> Response:
        body = {name: value for name, value in body.items() if value is not None and name not in NO_MATTER}
        body = {name: value for name, value in body.items() if name not in NOTHING or value != NOTHING[name]}
        if unserved := body.keys() - FIELDS:
            raise RefusedError(f"{min(unserved)} is not served. A request may have: {', '.join(sorted(FIELDS))}.")
        if not isinstance(seed := body.pop("seed", None), int | None):
            raise RefusedError(f"seed must be an integer, not {seed!r}.")
        SEED.set(seed)
        try:
            return await handle(body, request_id)
        except RefusedError:
            raise
        except MALFORMED as error:
            raise RefusedError(f"The request is malformed: {type(error).__name__}: {error}") from error

    return checked_handle


def _build_server(manager, *handlers, options: argparse.Namespace, build=server.build_server, **named):
    """The command's own server behind a gate, with metrics."""
    if manager.force_model is None:
        raise SystemExit("Name a checkpoint: python -m semcot.serve CHECKPOINT")
    model, _ = manager.load_model_and_processor(manager.process_model_name(manager.force_model))
    if not isinstance(model, SemCoTForCausalLM):
        raise SystemExit(
            f"{manager.force_model} is a {type(model).__name__}: `transformers serve` serves it, not this."
        )
    if options.openvino:
        from semcot.serving.openvino import with_openvino

        with_openvino(model)
    app = build(manager, *handlers, **named)
    for handler in (*handlers, *named.values()):
        if hasattr(handler, "handle_request"):
            handler.handle_request = checked(handler.handle_request)
    app.router.routes[:] = [route for route in app.router.routes if route.path in PATHS]

    @app.get("/metrics")
    def metrics() -> Response:
        return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)

    @app.exception_handler(RefusedError)
    async def refused(request, error: RefusedError) -> Response:
        return refusal(400, str(error))

    @app.exception_handler(QueueFullError)
    async def full(request, error: QueueFullError) -> Response:
        return refusal(503, str(error), {"Retry-After": "2"})

    return Gate(app, PATHS, options.api_key, options.max_body, options.timeout)


def _parse(arguments: list[str]) -> tuple[argparse.Namespace, list[str]]:
    """Options of this command, and what is left for `transformers serve`."""
    parser = argparse.ArgumentParser(
        prog="python -m semcot.serve CHECKPOINT",
        description="The options of this command; then those of `transformers serve`, which it takes too.",
        add_help=False,
        allow_abbrev=False,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    number = partial(parser.add_argument, type=int)
    number("--max-batch", default=Limits.max_batch, help="requests that are answered at once")
    number("--max-batch-tokens", default=Limits.max_batch_tokens, help="tokens of their prompts, with padding")
    number("--max-queue", default=Limits.max_queue, help="requests that may wait; more get status 503")
    number("--max-prompt-tokens", default=Limits.max_prompt_tokens, help="tokens of a prompt; else status 400")
    number("--max-new-tokens", default=Limits.max_new_tokens, help="tokens of an answer, which is cut there")
    number("--max-body", default=2**18, help="bytes of a request; else status 413")
    parser.add_argument(
        "--timeout", type=float, default=60, help="seconds for an answer, waiting included; else status 504"
    )
    parser.add_argument("--openvino", action="store_true", help="run the model by OpenVINO, on a CPU, in its dtype")
    parser.add_argument(
        "--api-key",
        default=os.environ.get("SEMCOT_API_KEY"),
        help="asked of clients, else status 401; better given in the environment, as SEMCOT_API_KEY",
    )
    options, rest = parser.parse_known_args(arguments)
    if "--help" in rest:
        parser.print_help()
    return options, rest


def main() -> None:
    options, rest = _parse(sys.argv[1:])
    limits = Limits(**{field.name: getattr(options, field.name) for field in fields(Limits)})
    AutoConfig.register(SemCoTConfig.model_type, SemCoTConfig)
    for auto_class in (AutoModel, AutoModelForCausalLM):
        auto_class.register(SemCoTConfig, SemCoTForCausalLM)
    # Where the command looks for the class that a checkpoint's config names, and for what it builds.
    transformers.SemCoTForCausalLM = SemCoTForCausalLM
    utils.GenerateManager = partial(BatchingManager, limits)
    server.build_server = partial(_build_server, options=options)
    uvicorn.Config = partial(uvicorn.Config, timeout_graceful_shutdown=options.timeout + 5)
    app(["serve", *rest])


if __name__ == "__main__":
    main()
