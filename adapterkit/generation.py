"""Answers: batches of prompts, each row with its own adapter and its own luck."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import attrs
import torch
from attrs.validators import and_, ge, gt, le, optional

from .config import build_config
from .contracts import Conversation, Message, Text
from .data.batching import prepend
from .data.padding import check_known, check_padding, keeps_state, pad_id
from .data.rendering import Renderer
from .errors import DataError, SelectionError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from torch import Tensor

    from .base import Base
    from .compose import Acting
    from .shared import SharedModel

__all__ = ["GenerateOptions", "Prompt", "check_prompts", "context_of", "generate", "processors"]

Prompt: TypeAlias = str | Text | Conversation | Sequence[Message | Mapping[str, Any]]
"""What a user says; turns, as messages or mappings with ``role`` and ``content``; a Conversation, which may bring tools; or a Text
to go on from, without a template."""

MOST_SEED = 2**63 - 1
MOST_TEMPERATURE = 1e6
LEAST_TEMPERATURE = 1e-6
"""Logits divided by less are no numbers any more; what is likeliest is then chosen anyhow."""


class Chance(Protocol):
    """How a token is chosen, as of :class:`GenerateOptions`."""

    @property
    def temperature(self) -> float: ...

    @property
    def top_p(self) -> float: ...

    @property
    def top_k(self) -> int | None: ...


@attrs.frozen(kw_only=True)
class GenerateOptions:
    """How to answer."""

    max_new_tokens: int = attrs.field(default=64, validator=ge(1))
    """The longest answer, in tokens."""
    temperature: float = attrs.field(default=0.0, validator=and_(ge(0.0), le(MOST_TEMPERATURE)))
    """0 takes the likeliest token each time; higher is more varied."""
    top_p: float = attrs.field(default=1.0, validator=and_(gt(0.0), le(1.0)))
    """Choose among the likeliest tokens that together have this probability."""
    top_k: int | None = attrs.field(default=None, validator=optional(ge(1)))
    """Choose among so many of the likeliest tokens."""
    seed: int = attrs.field(default=0, validator=and_(ge(0), le(MOST_SEED)))
    """Governs the choice; row i of a call draws from ``seed + i``, whatever its neighbours are."""
    batch_size: int = attrs.field(default=64, validator=ge(1))
    """Prompts in one batch."""


def generate(
    base: Base,
    prompts: Sequence[Prompt],
    *,
    adapter: Any = None,
    progress: Callable[[int], None] = lambda _: None,
    **options: Any,
) -> list[str]:
    """See :meth:`adapterkit.Base.generate`; ``progress`` is called with the number of prompts of each batch that is answered."""
    chosen = build_config(GenerateOptions, options, what="options of generate")
    check_prompts(prompts)
    adapters = _for_each(adapter, len(prompts))
    renderer = Renderer(base.tokenizer, max_length=context_of(base))
    ids = [renderer.prompt(prompt) for prompt in prompts]
    check_known(base.model, *ids)
    _check_lengths(ids, chosen.max_new_tokens, context_of(base))
    answers = [""] * len(prompts)
    # prompts of like length together: less padding, and a batch ends sooner
    order = sorted(range(len(ids)), key=lambda row: len(ids[row]))
    for rows in _batches(order, ids, chosen.batch_size, equal=keeps_state(base.model)):
        with base.using([adapters[row] for row in rows]):
            prefix, virtual = base.room(len(rows))
            mine = [[*own, *ids[row]] for own, row in zip(virtual, rows, strict=True)]
            _check_lengths(mine, chosen.max_new_tokens + max(map(len, prefix)), context_of(base))
            new = _answer(base, mine, prefix, rows, chosen, renderer.stop_ids())
        for row, tokens in zip(rows, new, strict=True):
            answers[row] = renderer.decode(tokens)
        progress(len(rows))
    return answers


def _batches(order: Sequence[int], ids: Sequence[Sequence[int]], size: int, *, equal: bool) -> Iterator[Sequence[int]]:
    """Batches of rows in ``order``; with ``equal``, of rows of one length each, so that none is padded."""
    start = 0
    for place in range(1, len(order) + 1):
        whole = place - start == size or place == len(order)
        if whole or (equal and len(ids[order[place]]) != len(ids[order[start]])):
            yield order[start:place]
            start = place


def check_prompts(prompts: Any) -> None:
    """Refuse what would fail later, or be taken for something else."""
    if isinstance(prompts, (str, Text, Conversation, Mapping)) or not isinstance(prompts, Sequence):
        raise DataError(f"prompts are a text or a list of prompts, not {type(prompts).__name__}")
    for number, prompt in enumerate(prompts):
        if isinstance(prompt, (str, Text)):
            if not (prompt if isinstance(prompt, str) else prompt.text):
                raise DataError(f"prompts[{number}] is empty: there is nothing to go on from")
        elif isinstance(prompt, Conversation):
            if not prompt.messages:
                raise DataError(f"prompts[{number}] is a conversation without turns: there is nothing to answer")
        elif isinstance(prompt, Mapping):
            raise DataError(
                f"prompts[{number}] is one turn; a prompt of turns is a list: [[{{'role': …, 'content': …}}]]"
            )
        elif not isinstance(prompt, Sequence) or not prompt or not all(map(_is_turn, prompt)):
            raise DataError(
                f"prompts[{number}] is no prompt: it must be a text, a Text, or a list of turns with role and content"
            )


def _is_turn(turn: Any) -> bool:
    if isinstance(turn, Mapping):
        said = isinstance(turn.get("content"), str) or bool(turn.get("tool_calls"))
        return isinstance(turn.get("role"), str) and said
    return isinstance(turn, Message)


def _for_each(adapter: Any, rows: int) -> list[Acting | None]:
    if isinstance(adapter, (list, tuple)):
        if len(adapter) != rows:
            raise SelectionError(
                f"{len(adapter)} adapters for {rows} prompts: give one for each, or a single one for all"
            )
        return list(adapter)
    return [adapter] * rows


def context_of(base: SharedModel) -> int:
    """The most tokens that a base reads at once."""
    return int(getattr(base.model.config.get_text_config(), "max_position_embeddings", None) or 2**31)


def _check_lengths(ids: Sequence[Sequence[int]], new: int, context: int) -> None:
    longest = max(map(len, ids), default=0)
    if longest + new > context:
        raise SelectionError(
            f"a prompt of {longest} tokens and {new} new ones do not fit into the base's {context}: "
            "shorten the prompt or lower max_new_tokens"
        )


@torch.no_grad()
def _answer(
    base: Base,
    ids: Sequence[Sequence[int]],
    prefix: Sequence[Sequence[int]],
    rows: Sequence[int],
    options: GenerateOptions,
    stop: tuple[int, ...],
) -> list[list[int]]:
    """The new tokens of one batch, padded on the left as generation needs it, behind the rows' prefixes."""
    pad, width = pad_id(base.tokenizer), max(map(len, ids))
    padded = torch.tensor([[pad] * (width - len(row)) + list(row) for row in ids], device=base.device)
    seen = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in ids], device=base.device)
    padded, mask = prepend(prefix, padded, seen)
    check_padding(base.model, mask)
    model = base.model
    ours = {
        "max_new_tokens": options.max_new_tokens,
        "do_sample": False,
        "eos_token_id": list(stop),
        "pad_token_id": pad,
        "logits_processor": processors(options, seed=options.seed, rows=rows, device=base.device),
    }
    out = model.generate(padded, attention_mask=mask, **{**_neutral(model.generation_config), **ours})
    return [row[padded.shape[1] :].tolist() for row in out]


def _neutral(config: Any) -> dict[str, Any]:
    """What undoes each setting of the base's own ``generation_config.json`` that would change an answer.

    transformers fills whatever is not given from there: beams, penalties and stop strings that nobody asked for.
    """
    from transformers import GenerationConfig

    defaults = {**GenerationConfig._get_default_generation_params(), "max_length": None}  # noqa: SLF001
    names = set(vars(GenerationConfig())) - _HARMLESS
    return {name: defaults.get(name) for name in names if getattr(config, name, None) is not None}


_HARMLESS = {
    *("bos_token_id", "decoder_start_token_id", "transformers_version", "_from_model_config"),
    *("use_cache", "cache_implementation", "cache_config", "max_cache_len", "compile_config", "disable_compile"),
}


def processors(options: Chance, *, seed: int, rows: Sequence[int], device: torch.device) -> Any:
    """What changes scores ``(rows, vocabulary)`` so that the highest is the choice; nothing where the likeliest is.

    Args:
        options: How it is chosen.
        seed: Row i draws from ``seed + i``.
        rows: The numbers of the rows.
        device: Where the scores are.
    """
    from transformers import LogitsProcessorList, TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

    made = LogitsProcessorList()
    if options.temperature < LEAST_TEMPERATURE:
        return made
    made.append(TemperatureLogitsWarper(options.temperature))
    if options.top_k is not None:
        made.append(TopKLogitsWarper(options.top_k))
    if options.top_p < 1.0:
        made.append(TopPLogitsWarper(options.top_p))
    made.append(_RowNoise(seed, rows, device))
    return made


class _RowNoise:
    """Makes the likeliest token a sample: the Gumbel-max trick, with a random stream for each row.

    A row's answer so depends on its own seed alone; sampling from the batch's one stream would let neighbours change it.
    """

    def __init__(self, seed: int, rows: Sequence[int], device: torch.device) -> None:
        self._streams = [torch.Generator(device).manual_seed(seed + row) for row in rows]

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:  # noqa: ARG002 - transformers' signature
        uniform = torch.stack([torch.rand(scores.shape[1], generator=s, device=scores.device) for s in self._streams])
        return scores.float() - torch.log(-torch.log(uniform.clamp_min(1e-20)))
