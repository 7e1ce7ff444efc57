"""
What a server that thinks before an engine takes of OpenAI's API: an allow-list.

The engine gets these fields alone. Others would be read by an engine that sees embeddings in place of the prompt's
tokens (penalties, prompt log-probabilities, suffixes), or would go round the thoughts.
"""

from abc import ABC, abstractmethod
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, model_validator


class Fields(BaseModel):
    """Nothing but what it names, and no value of another type; `null` and an empty list say nothing."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _without_nothing(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        return {name: value for name, value in data.items() if value is not None and value != []}


def _listed(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


class TextPart(Fields):
    type: Literal["text"] = "text"
    text: str

    @model_validator(mode="before")
    @classmethod
    def _of_text(cls, data: Any) -> Any:
        return {"text": data} if isinstance(data, str) else data


class Message(Fields):
    role: Literal["system", "user", "assistant"]
    content: Annotated[list[TextPart], BeforeValidator(_listed)]

    @property
    def text(self) -> str:
        return "\n".join(part.text for part in self.content)


def _ending_with_a_question(messages: list[Message]) -> list[Message]:
    if messages[-1].role != "user" or not messages[-1].text.strip():
        raise ValueError("the last message must be the user's, with a text")
    return messages


def _question(prompt: str) -> str:
    if not prompt.strip():
        raise ValueError("the prompt is empty")
    return prompt


class StreamOptions(Fields):
    include_usage: bool = False


class Request(Fields, ABC):
    """What both endpoints take. Greedy, unless a temperature is given."""

    model: str | None = None
    stream: bool = False
    stream_options: StreamOptions | None = None
    max_tokens: int | None = Field(None, ge=1)
    n: int = Field(1, ge=1, le=16)
    seed: int | None = Field(None, ge=-(2**63), lt=2**63)
    stop: Annotated[
        list[Annotated[str, StringConstraints(min_length=1)]] | None, Field(max_length=4), BeforeValidator(_listed)
    ] = None
    temperature: float = Field(0.0, ge=0, le=2)
    top_p: float = Field(1.0, gt=0, le=1)
    user: str | None = None

    @abstractmethod
    def chats(self) -> list[list[dict[str, str]]]:
        """The chats to answer, as of `apply_chat_template`."""

    def for_engine(self, embeds: list[str]) -> dict[str, Any]:
        """The request that the engine gets, with the prompt of each chat as `encode_embeds` writes it."""
        fields = self.model_dump(exclude_unset=True, exclude={"messages", "prompt"})
        return fields | {"temperature": self.temperature}


class ChatRequest(Request):
    """A POST to /v1/chat/completions."""

    messages: Annotated[list[Message], AfterValidator(_ending_with_a_question)]
    max_completion_tokens: int | None = Field(None, ge=1)

    def chats(self) -> list[list[dict[str, str]]]:
        return [[{"role": message.role, "content": message.text} for message in self.messages]]

    def for_engine(self, embeds: list[str]) -> dict[str, Any]:
        # The whole prompt, rendered, is one part, which nothing can slip into.
        part = {"type": "prompt_embeds", "data": embeds[0]}
        return super().for_engine(embeds) | {"messages": [{"role": "user", "content": [part]}]}


class CompletionRequest(Request):
    """A POST to /v1/completions; a prompt is a question, and becomes the same chat."""

    prompt: Annotated[list[Annotated[str, AfterValidator(_question)]], Field(max_length=64), BeforeValidator(_listed)]

    def chats(self) -> list[list[dict[str, str]]]:
        return [[{"role": "user", "content": prompt}] for prompt in self.prompt]

    def for_engine(self, embeds: list[str]) -> dict[str, Any]:
        return super().for_engine(embeds) | {"prompt_embeds": embeds}


REQUESTS: dict[str, type[Request]] = {"/v1/chat/completions": ChatRequest, "/v1/completions": CompletionRequest}
"""By path."""
