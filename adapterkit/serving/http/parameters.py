"""What the parameters of OpenAI's API mean here: those that are taken, those that change no answer, and those that are refused."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from adapterkit.errors import suggest
from adapterkit.serving.stepping.constraints import MOST_SCHEMA

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["MOST_ANSWERS", "MOST_KEYS", "Asked", "Bounded", "check_depth", "check_extras"]

MOST_ANSWERS = 16
MOST_TOKENS = 2**31
MOST_SEED = 2**63 - 1
MOST_KEYS = 100
MOST_DEPTH = 64

HARMLESS = {
    *("user", "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key", "prompt_cache_retention"),
    *("prediction", "parallel_tool_calls"),
}
"""What changes how a request is billed, kept or sped up, and not its answer."""
NEUTRAL: dict[str, tuple[Any, ...]] = {
    "logit_bias": ({},),
    "presence_penalty": (0,),
    "frequency_penalty": (0,),
    "repetition_penalty": (1,),
    "min_p": (0,),
    "best_of": (1,),
    "echo": (False,),
    "suffix": ("",),
    "functions": ([],),
    "function_call": ("none",),
    "modalities": (["text"], []),
    "audio": (),
    "reasoning_effort": (),
    "verbosity": (),
    "web_search_options": (),
}
"""What is not supported, with the values that ask for nothing; so does null."""


class Bounded(BaseModel):
    """An object of few keys: how many there are is looked at before anything else."""

    @model_validator(mode="before")
    @classmethod
    def _check_keys(cls, given: Any) -> Any:
        if isinstance(given, dict) and len(given) > MOST_KEYS:
            raise ValueError(f"there are {len(given):,} keys: at most {MOST_KEYS} are taken")
        return given


class ResponseFormat(Bounded):
    """What an answer has to be."""

    model_config = ConfigDict(extra="allow")
    type: Literal["text", "json_object", "json_schema"]
    json_schema: dict[str, Any] | None = None

    def schema_text(self) -> str | None:
        """The JSON schema that the answer has to fit, as JSON; None for any text.

        Raises:
            ValueError: There is none, or it is too long.
        """
        if self.type == "text":
            return None
        if self.type == "json_object":
            return '{"type": "object"}'
        schema = (self.json_schema or {}).get("schema")
        if not isinstance(schema, dict):
            raise ValueError("response_format.json_schema.schema is missing: it is the schema, as an object")  # noqa: TRY004
        check_depth(schema, "response_format.json_schema.schema")
        text = json.dumps(schema)
        if len(text) > MOST_SCHEMA:
            raise ValueError(f"response_format.json_schema is too long: at most {MOST_SCHEMA:,} characters are taken")
        return text


class StreamOptions(BaseModel):
    """What a stream tells beside the text."""

    include_usage: bool = False
    include_obfuscation: bool = False


class Asked(Bounded):
    """What both ways to ask have in common."""

    model_config = ConfigDict(extra="allow", allow_inf_nan=False, protected_namespaces=())
    operation: ClassVar[str] = "text_completion"
    """What OpenTelemetry calls it."""

    model: Annotated[str, Field(min_length=1, max_length=2000)]
    max_tokens: Annotated[int, Field(ge=1, le=MOST_TOKENS)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=-1, le=MOST_TOKENS)] | None = None
    n: Annotated[int, Field(ge=1, le=MOST_ANSWERS)] | None = None
    seed: Annotated[int, Field(ge=-MOST_SEED - 1, le=MOST_SEED)] | None = None
    stop: (
        Annotated[str, Field(min_length=1, max_length=1000)]
        | Annotated[list[Annotated[str, Field(min_length=1, max_length=1000)]], Field(max_length=16, fail_fast=True)]
        | None
    ) = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    response_format: ResponseFormat | None = None

    @model_validator(mode="before")
    @classmethod
    def _check_characters(cls, given: Any) -> Any:
        if not isinstance(given, dict) or len(given) > MOST_KEYS:  # which is refused
            return given
        try:
            json.dumps(given, ensure_ascii=False).encode()
        except UnicodeEncodeError:  # JSON can write halves of surrogate pairs; no tokenizer reads them
            raise ValueError("the body holds half of a character: a text was cut or decoded wrongly") from None
        except RecursionError:
            raise ValueError("the body is nested too deeply") from None
        return given

    @model_validator(mode="after")
    def _check(self) -> Asked:
        extras = dict(self.model_extra or {})
        best = extras.get("best_of")
        if best == self.answers and not isinstance(best, bool):  # the best of as many as are asked for: all of them
            del extras["best_of"]
        check_extras(extras, type(self).model_fields)
        if self.stream_options is not None and not self.stream:
            raise ValueError("stream_options goes with stream=true only")
        if self.response_format is not None:
            self.response_format.schema_text()
        return self

    @property
    def answers(self) -> int:
        """How many answers to each prompt."""
        return self.n or 1

    @property
    def wants_usage(self) -> bool:
        """Whether a stream ends with what it took."""
        return self.stream_options is not None and self.stream_options.include_usage

    def options(self, number: int = 0) -> dict[str, Any]:
        """Options of the engine for the answer of this number; each draws from a seed of its own.

        A temperature that is not given is 1, as OpenAI's API has it.
        """
        stop = (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())
        given: dict[str, Any] = {
            "temperature": 1.0 if self.temperature is None else self.temperature,
            "top_p": self.top_p,
            "top_k": self.top_k if self.top_k is not None and self.top_k > 0 else None,  # 0 and -1 say none elsewhere
            "seed": None if self.seed is None else (self.seed + number) & MOST_SEED,  # the engine has none below 0
            "json_schema": None if self.response_format is None else self.response_format.schema_text(),
            "stop": stop or None,
        }
        return {name: value for name, value in given.items() if value is not None}


def check_extras(extras: Mapping[str, Any], known: Mapping[str, Any], where: str = "") -> None:
    """Refuse what would change the answer if it were obeyed, or is not known.

    Raises:
        PydanticCustomError: Names the parameter.
    """
    for name, value in extras.items():
        if name in HARMLESS or value is None:
            continue
        if name not in NEUTRAL:
            raise _refused(name, f"{where}{name[:80]!r} is not a parameter here{suggest(name[:80], known)}")
        if not any(value == one and isinstance(value, bool) == isinstance(one, bool) for one in NEUTRAL[name]):
            raise _refused(name, f"{where}{name} is not supported: leave it out")


def check_depth(value: Any, what: str) -> None:
    """Refuse what is nested more deeply than templates and grammars can follow.

    Raises:
        ValueError: Names it.
    """
    depth, level = 0, [value]
    while level := [one for one in level if isinstance(one, (dict, list))]:
        depth += 1
        if depth > MOST_DEPTH:
            raise ValueError(f"{what} is nested too deeply: at most {MOST_DEPTH} levels are taken")
        level = [inner for one in level for inner in (one.values() if isinstance(one, dict) else one)]


def _refused(name: str, said: str) -> PydanticCustomError:
    return PydanticCustomError("parameter", "{said}", {"said": said, "param": name[:80]})
