"""Methods that say what they do without a base: a good one, and those that say something else."""

from adapterkit import LayerMethod, LowRank, hookimpl
from tests.conformance.seeded import Bug, Config, method

SCALE = 2.0


class Algebra(LayerMethod):
    """The seeds' LoRA, without a base: a tensor ``down`` and a tensor ``up`` for each site."""

    kinds = ("linear", "conv1d")

    def effects(self, config, tensors):
        sites = [name.removesuffix(".down") for name in tensors if name.endswith(".down")]
        return {site: (self.of(tensors[f"{site}.down"], tensors[f"{site}.up"]),) for site in sites}

    def of(self, down, up):
        return LowRank(down, up, SCALE)

    def express(self, effects):
        made = {site: self.tensors_of(one) for site, (one,) in effects.items()}
        rank = max(len(one["down"]) for one in made.values())
        tensors = {f"{site}.{name}": tensor for site, one in made.items() for name, tensor in one.items()}
        return Config(rank=rank, target_modules=tuple(sorted(made))), tensors

    def tensors_of(self, one):
        return {"down": one.down, "up": one.up * (one.scale / SCALE)}


class ForgetsScale(Algebra):
    """Effects without the scale."""

    def of(self, down, up):
        return LowRank(down, up, 1.0)


class ForgetsEmbeddings(Algebra):
    """Effects that do not say which site is an embedding."""

    kinds = LayerMethod.kinds


class ScalesTwice(Algebra):
    """What is expressed has the scale in it, and is scaled again."""

    def tensors_of(self, one):
        return {"down": one.down, "up": one.up * one.scale}


class LosesASite(Algebra):
    """What is expressed leaves out a site."""

    def express(self, effects):
        first = min(effects)
        return super().express({site: here for site, here in effects.items() if site != first})


class Transposes(Algebra):
    """What is expressed does not fit the base."""

    def tensors_of(self, one):
        return {"down": one.down.T, "up": one.up.T}


GOOD = (method("good_algebra", kind=Algebra),)
BUGS = (
    Bug(
        method("forgets_scale_alone", kind=ForgetsScale),
        "effects_are_the_same_without_the_base",
        "than lower: weight at",
    ),
    Bug(
        method("forgets_embeddings", kind=ForgetsEmbeddings),
        "effects_are_the_same_without_the_base",
        "than lower: weight at .*embed_tokens, weight of an embedding at",
    ),
    Bug(method("scales_twice", kind=ScalesTwice), "what_is_expressed_acts_the_same", "acts otherwise"),
    Bug(method("loses_a_site", kind=LosesASite), "what_is_expressed_acts_the_same", "acts otherwise"),
    Bug(method("transposes", kind=Transposes), "what_is_expressed_acts_the_same", "does not fit the base"),
)


@hookimpl
def adapterkit_methods():
    yield from GOOD
    yield from (bug.method for bug in BUGS)
