"""Serving: prompts with their thoughts in place, for an engine that runs the base."""

from semcot.serving.prompt_embeddings import encode_embeds, prompt_embeds

__all__ = ["encode_embeds", "prompt_embeds"]
