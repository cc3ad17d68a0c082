"""What is known of ways to make a model do something, as a table: read it, and change it where you know better.

The figures of :data:`WAYS` are rules of thumb for models of some billions of parameters, as guides on fine-tuning give them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from .advice import Situation

__all__ = ["GOALS", "NEVER", "RULES", "WAYS", "Goal", "Rule", "Way", "epochs_for"]

NEVER = -100
"""More points than anything else gives: this way does not do it."""


@attrs.frozen(kw_only=True)
class Way:
    """A way to make a model do something.

    Attributes:
        name: What it is called here.
        title: What people call it.
        method: The method that does it; empty where nothing is trained.
        rows: How many rows it wants, and up to how many more still help.
        cost: US dollars, from and to.
        latency: Milliseconds that it adds to an answer.
    """

    name: str
    title: str
    method: str = ""
    rows: tuple[int, int] = (0, 0)
    cost: tuple[float, float] = (0.0, 0.0)
    latency: float = 0.0


WAYS = {
    way.name: way
    for way in (
        Way(name="prompting", title="instructions and examples in the prompt"),
        Way(name="rag", title="documents looked up for each question (RAG)", latency=50.0),
        Way(name="prompt_tuning", title="a soft prompt", method="prompt_tuning", rows=(100, 10_000), cost=(10, 200)),
        Way(name="lora", title="LoRA", method="lora", rows=(100, 10_000), cost=(10, 200)),
        Way(name="qlora", title="QLoRA: LoRA on a base in 4 bits", method="qlora", rows=(100, 10_000), cost=(10, 200)),
        Way(name="full", title="every weight", method="full", rows=(10_000, 100_000), cost=(500, 10_000)),
    )
}
TRAINED = tuple(way.name for way in WAYS.values() if way.method)


@attrs.frozen(kw_only=True)
class Goal:
    """What somebody wants of a model.

    Attributes:
        name: What it is called here.
        about: What that is.
        points: How well each way does it.
        reason: Why.
    """

    name: str
    about: str
    points: Mapping[str, int]
    reason: str


GOALS = {
    goal.name: goal
    for goal in (
        Goal(
            name="style",
            about="a voice or a manner",
            points={"prompting": 2, "rag": 0, "prompt_tuning": 3, "lora": 6, "qlora": 5, "full": 3},
            reason="a manner is in every answer, so that a few hundred examples teach it, and a small adapter holds it",
        ),
        Goal(
            name="format",
            about="answers of a fixed form, such as JSON",
            points={"prompting": 4, "rag": 0, "prompt_tuning": 4, "lora": 6, "qlora": 5, "full": 2},
            reason="a form is learnt from few examples; where the base can do it when asked, or decoding is constrained, "
            "it needs no training",
        ),
        Goal(
            name="classification",
            about="one of a few labels",
            points={"prompting": 3, "rag": 1, "prompt_tuning": 4, "lora": 6, "qlora": 5, "full": 3},
            reason="labels are few tokens: each row teaches little, and a hundred rows for each label teach enough",
        ),
        Goal(
            name="extraction",
            about="fields out of a text",
            points={"prompting": 4, "rag": 0, "prompt_tuning": 2, "lora": 6, "qlora": 5, "full": 3},
            reason="what is asked for is in the text; training teaches which of it is wanted",
        ),
        Goal(
            name="facts",
            about="knowledge that the base does not have",
            points={"prompting": 2, "rag": 9, "prompt_tuning": NEVER, "lora": -2, "qlora": -2, "full": -1},
            reason="training teaches how to answer rather than what is true: facts that it saw a few times come out wrong, and can "
            "neither be cited nor taken back",
        ),
        Goal(
            name="domain",
            about="the language of a field",
            points={"prompting": 1, "rag": 5, "prompt_tuning": 0, "lora": 5, "qlora": 4, "full": 6},
            reason="words and habits of a field are learnt by training on much text of it; its facts are still better looked up",
        ),
        Goal(
            name="reasoning",
            about="longer thinking, mathematics, code",
            points={"prompting": 4, "rag": 0, "prompt_tuning": -2, "lora": 5, "qlora": 4, "full": 5},
            reason="what the base can do sometimes, training makes it do more often; what it never does, few rows do not teach",
        ),
        Goal(
            name="alignment",
            about="answers that people prefer",
            points={"prompting": 2, "rag": 0, "prompt_tuning": 0, "lora": 6, "qlora": 5, "full": 4},
            reason="fine-tune on good answers first, then train on pairs of preferred and rejected ones; with adapters, policy and "
            "reference share one base in memory",
        ),
    )
}


@attrs.frozen(kw_only=True)
class Rule:
    """Something that speaks for or against ways.

    Attributes:
        name: What it is called here.
        holds: Whether it does, in a situation.
        points: For each way that it speaks for or against.
        reason: Why; ``{}`` are the situation's own figures.
        change: What would have to be otherwise; empty where nothing can be done about it.
    """

    name: str
    holds: Callable[[Situation], bool]
    points: Mapping[str, int]
    reason: str
    change: str = ""

    def says(self, situation: Situation) -> str:
        """The reason, with figures."""
        return self.reason.format(**attrs.asdict(situation, recurse=False))


def _each(points: int, *names: str) -> dict[str, int]:
    return dict.fromkeys(names or TRAINED, points)


def _fits(name: str) -> Callable[[Situation], bool]:
    return lambda situation: situation.fits.get(name) is False


RULES = (
    Rule(
        name="no rows",
        holds=lambda one: one.rows == 0,
        points=_each(NEVER),
        reason="there are no rows to train on",
        change="a hundred good rows make training worth a try",
    ),
    Rule(
        name="few rows",
        holds=lambda one: 0 < one.rows < 50,
        points={**_each(-6), "full": NEVER, "prompting": 4},
        reason="{rows:,} rows are learnt by heart before they teach anything; as examples in the prompt they do more",
        change="from about 100 rows on, training begins to pay",
    ),
    Rule(
        name="rows for a start",
        holds=lambda one: 50 <= one.rows < 100,
        points={**_each(-2), "full": NEVER, "prompting": 2},
        reason="{rows:,} rows are at the lower end: hold some of them out, and compare with the others as examples in the prompt",
        change="100 to a few thousand good rows",
    ),
    Rule(
        name="enough rows for an adapter",
        holds=lambda one: 100 <= one.rows <= 10_000,
        points=_each(3, "lora", "qlora", "prompt_tuning"),
        reason="{rows:,} rows are what adapters are made for; a thousand good ones beat ten thousand noisy ones",
    ),
    Rule(
        name="too few rows for every weight",
        holds=lambda one: 0 < one.rows < 10_000,
        points={"full": -5},
        reason="{rows:,} rows are few for every weight of a model: it forgets more than it learns",
        change="10,000 rows and more",
    ),
    Rule(
        name="many rows",
        holds=lambda one: one.rows > 10_000,
        points={"full": 4, "lora": 2, "qlora": 2, "prompt_tuning": -3},
        reason="{rows:,} rows can fill more than a soft prompt holds",
    ),
    Rule(
        name="sensitive data",
        holds=lambda one: one.sensitive,
        points={**_each(-5), "rag": 3},
        reason="whoever may ask a model may get out of it what it was trained on; documents that are looked up can be kept from "
        "those who may not see them",
        change="take out what is personal or secret (`adapterkit audit` looks for it), and test what the adapter gives away",
    ),
    Rule(
        name="no time for looking up",
        holds=lambda one: one.latency is not None and one.latency < WAYS["rag"].latency,
        points={"rag": -4},
        reason="looking documents up adds about 50 ms, and {latency:g} ms may be added",
        change="50 ms more for an answer",
    ),
    Rule(
        name="a large base",
        holds=lambda one: one.parameters >= 3_000_000_000,
        points={"prompt_tuning": 1},
        reason="a soft prompt comes near to an adapter on large bases only (Lester et al. 2021)",
    ),
    Rule(
        name="a small base",
        holds=lambda one: 0 < one.parameters < 1_000_000_000,
        points={"prompting": -3, "prompt_tuning": -3},
        reason="a base of {parameters:,} parameters follows instructions poorly, and a soft prompt has little to build on",
        change="a larger base",
    ),
    Rule(
        name="a small base is cheap",
        holds=lambda one: 0 < one.parameters < 1_000_000_000,
        points={"full": 2},
        reason="every weight of {parameters:,} is cheap to train and to keep",
    ),
    *(
        Rule(
            name=f"{name} does not fit",
            holds=_fits(name),
            points={name: -8},
            reason=f"the device has too little memory for {WAYS[name].title}",
            change="a device with more memory, shorter rows or a smaller base",
        )
        for name in TRAINED
    ),
    Rule(
        name="16 bits fit",
        holds=lambda one: one.fits.get("lora") is True,
        points={"lora": 1},
        reason="the base fits in 16 bits, in which training is faster and nothing is rounded",
    ),
    Rule(
        name="4 bits fit alone",
        holds=lambda one: one.fits.get("qlora") is True and one.fits.get("lora") is False,
        points={"qlora": 3},
        reason="the base fits in 4 bits and not in 16",
    ),
)


def epochs_for(rows: int) -> float:
    """How many times the rows are seen: one to five, the fewer the more there are."""
    return next(epochs for most, epochs in ((300, 5.0), (1000, 3.0), (10_000, 2.0), (10**12, 1.0)) if rows <= most)


def known(goal: str) -> Any:
    """The goal of this name, or None."""
    return GOALS.get(goal)
