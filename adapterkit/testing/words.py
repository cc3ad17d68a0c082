"""A tokenizer of 97 words and a few rows, so that tiny models can be trained and asked with nothing to download."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

__all__ = ["ROWS", "some_ids", "tiny_tokenizer"]

VOCABULARY = 97
SPECIAL = ("<pad>", "<eos>", "<unk>")
QUESTIONS = ("where is my card", "my card is lost", "is the card on its way", "who has my card now")
ANSWERS = ("on its way", "it is lost", "yes", "no")

ROWS: tuple[dict[str, str], ...] = tuple(
    {"prompt": question, "completion": ANSWERS[(number + shift) % len(ANSWERS)]}
    for shift, polite in enumerate(("", "please say "))
    for number, question in enumerate(polite + question for question in QUESTIONS)
)
"""Eight rows, as :meth:`adapterkit.Base.train` takes them, in words of :func:`tiny_tokenizer`."""


def tiny_tokenizer() -> Any:
    """A token for each word between spaces; no chat template."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    known = sorted({word for row in ROWS for text in row.values() for word in text.split()})
    others = [f"word{number}" for number in range(VOCABULARY - len(SPECIAL) - len(known))]
    numbered = {word: number for number, word in enumerate((*SPECIAL, *known, *others))}
    core = Tokenizer(models.WordLevel(numbered, unk_token="<unk>"))  # noqa: S106 - a word, not a secret
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token="<pad>",  # noqa: S106
        eos_token="<eos>",  # noqa: S106
        unk_token="<unk>",  # noqa: S106
    )


def some_ids(rows: int = 4, length: int = 9, *, seed: int = 0) -> Tensor:
    """Token ids ``(rows, length)`` of any words but special ones."""
    stream = torch.Generator().manual_seed(seed)
    return torch.randint(len(SPECIAL), VOCABULARY, (rows, length), generator=stream)
