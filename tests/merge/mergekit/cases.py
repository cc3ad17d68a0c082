"""The same merges twice: as mergekit's configuration, and as a strategy with its options."""

import attrs

VERSION = "0.1.5"
SEED = 0
"""Of the numbers that stand in for mergekit's ``torch.bernoulli``: drawn anew for each weight, one model after another."""
WEIGHTS = ("model.embed_tokens.weight", "model.layers.0.self_attn.k_proj.weight", "model.layers.1.mlp.down_proj.weight")
"""Which of the merged model's weights are kept: an embedding, one with fewer rows than columns, and one with more."""


@attrs.frozen
class Case:
    """One merge.

    Attributes:
        name: What it is called among the fixture's tensors.
        theirs: mergekit's configuration, models by the names ``base``, ``a``, ``b`` and ``c``.
        strategy: Ours.
        weights: Ours, one for each model of which the changes are merged.
        options: Ours.
        models: Which changes are merged.
    """

    name: str
    theirs: dict
    strategy: str
    weights: tuple[float, ...]
    options: dict = attrs.field(factory=dict)
    models: str = "abc"


def case(name, strategy, weights, options, *, method=None, models="abc", base="base", each=None, **parameters):
    """A case in which each model has its weight, and what ``each`` says for all."""
    each = each or {}
    entries = [
        {"model": model, "parameters": {"weight": weight, **each}}
        for model, weight in zip(models, weights, strict=True)
    ]
    theirs = {"merge_method": method or strategy, "models": entries, "parameters": parameters, "dtype": "float32"}
    if base is not None:
        theirs["base_model"] = base
    return Case(name, theirs, strategy, tuple(weights), options, models)


UNEVEN = (1.0, 0.5, 0.7)
L1 = {"rescale": "l1"}
NO_MEAN = {"normalize": "none"}

CASES = (
    case("linear", "soup", UNEVEN, {}, method="linear", base=None),
    case("task_arithmetic", "task_arithmetic", (1.0, -0.5, 0.7), {"scaling": 0.8}, **{"lambda": 0.8}),
    case("ties", "ties", UNEVEN, {"density": 0.4}, each={"density": 0.4}),
    case(
        "ties_sum",
        "ties",
        UNEVEN,
        {"density": 0.4, "scaling": 0.5} | NO_MEAN,
        each={"density": 0.4},
        normalize=False,
        **{"lambda": 0.5},
    ),
    case("dare_linear", "dare_linear", UNEVEN, {"density": 0.6} | L1, each={"density": 0.6}),
    case(
        "dare_linear_bare",
        "dare_linear",
        UNEVEN,
        {"density": 0.6, "rescale": "none"},
        each={"density": 0.6},
        rescale=False,
    ),
    case("dare_ties", "dare_ties", UNEVEN, {"density": 0.6} | L1 | NO_MEAN, each={"density": 0.6}),
    case("dare_ties_mean", "dare_ties", UNEVEN, {"density": 0.6} | L1, each={"density": 0.6}, normalize=True),
    case("breadcrumbs", "breadcrumbs", UNEVEN, {"density": 0.7, "gamma": 0.1}, each={"density": 0.7, "gamma": 0.1}),
    case(
        "breadcrumbs_ties",
        "breadcrumbs_ties",
        UNEVEN,
        {"density": 0.7, "gamma": 0.1} | NO_MEAN,
        each={"density": 0.7, "gamma": 0.1},
    ),
    case("della", "della", UNEVEN, {"density": 0.6, "epsilon": 0.2} | L1, each={"density": 0.6, "epsilon": 0.2}),
    case(
        "della_linear",
        "della_linear",
        UNEVEN,
        {"density": 0.6, "epsilon": 0.2} | L1,
        each={"density": 0.6, "epsilon": 0.2},
    ),
    case("slerp", "slerp", (1.0, 1.0), {"t": 0.3, "of": "weights"}, models="ab", base="a", t=0.3),
    case("nuslerp", "slerp", (1.0, 0.5), {}, method="nuslerp", models="ab"),
    case("model_stock", "model_stock", (1.0, 1.0, 1.0), {}),
    case("model_stock_rows", "model_stock", (1.0, 1.0, 1.0), {"filter_wise": True}, filter_wise=True),
    case("karcher", "karcher", (1.0, 1.0, 1.0), {"of": "weights"}, base=None),
    case("sce", "sce", (1.0, 1.0, 1.0), {"select_topk": 0.5}, select_topk=0.5),
)

NEGATIVE = case("ties_negative", "ties", (1.0, -0.5), {"density": 0.4}, each={"density": 0.4}, models="ab")
"""Where mergekit is wrong."""
