"""
`transformers serve` for SemCoT checkpoints: `python -m semcot.serve CHECKPOINT --port 8000`, with all of that command's
options.

By itself the command takes only classes that transformers brings. With this one made known to it, chat, completions,
responses and streaming go through the thoughts, and what cannot is answered with status 400 and a sentence. Needs
`transformers[serving]`.
"""

import sys

import transformers
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM
from transformers.cli.serving import server, utils
from transformers.cli.transformers import app

from configuration_semcot import SemCoTConfig
from modeling_semcot import SemCoTForCausalLM


class RefusedError(ValueError):
    """A request that cannot go through the thoughts."""


class GenerateManager(utils.GenerateManager):
    """The command's own, which finds out only in `generate` what a model refuses: a 500, or an error in a stream."""

    def generate_streaming(self, model, processor, inputs, gen_config, *args, **kwargs):
        _check(model, inputs, gen_config)
        return super().generate_streaming(model, processor, inputs, gen_config, *args, **kwargs)

    async def generate_non_streaming(self, model, processor, inputs, gen_config, *args, **kwargs):
        _check(model, inputs, gen_config)
        return await super().generate_non_streaming(model, processor, inputs, gen_config, *args, **kwargs)


def _check(model, inputs, generation_config) -> None:
    if isinstance(model, SemCoTForCausalLM):
        try:
            model._check_settings(generation_config, {})
            model._check_prompt(inputs["input_ids"] == model.config.thought_token_id, inputs["attention_mask"])
        except ValueError as error:
            raise RefusedError(str(error)) from error


def _build_server(*args, build=server.build_server, **kwargs):
    """The command's own server, which says why it refuses a request as OpenAI's does."""
    from fastapi.responses import JSONResponse  # by now the command has looked whether it is there

    app = build(*args, **kwargs)

    @app.exception_handler(RefusedError)
    async def refused(request, error):
        return JSONResponse({"error": {"message": str(error), "type": "invalid_request_error"}}, status_code=400)

    return app


def main() -> None:
    AutoConfig.register(SemCoTConfig.model_type, SemCoTConfig)
    for auto_class in (AutoModel, AutoModelForCausalLM):
        auto_class.register(SemCoTConfig, SemCoTForCausalLM)
    # Where the command looks for the class that a checkpoint's config names, and for what it builds.
    transformers.SemCoTForCausalLM = SemCoTForCausalLM
    utils.GenerateManager, server.build_server = GenerateManager, _build_server
    app(["serve", *sys.argv[1:]])


if __name__ == "__main__":
    main()
