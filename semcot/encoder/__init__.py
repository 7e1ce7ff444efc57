"""Stage 1 of training: an encoder that judges whether implicit tokens mean what the reasoning says."""

from semcot.encoder.contrastive import retrieval_accuracy, train_reasoning_encoder
from semcot.encoder.reasoning_encoder import (
    ReasoningEncoder,
    build_reasoning_encoder,
    encode_texts,
    encode_thoughts,
    load_reasoning_encoder,
)

__all__ = [
    "ReasoningEncoder",
    "build_reasoning_encoder",
    "encode_texts",
    "encode_thoughts",
    "load_reasoning_encoder",
    "retrieval_accuracy",
    "train_reasoning_encoder",
]
