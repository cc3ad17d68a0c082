import pytest
import torch

from adapterkit.testing import tiny_llama


@pytest.fixture
def saved(tmp_path):
    """Saves a model under a name, and gives the folder."""

    def save(model, name, **options):
        model.save_pretrained(tmp_path / name, **options)
        return tmp_path / name

    return save


@pytest.fixture
def tuned():
    """Changes the parameters of a model whose names end with one of some words by an update of a rank; or others by noise."""

    def tune(model, *ends, rank=None, size=0.05, seed=5):
        stream = torch.Generator().manual_seed(seed)
        found = {name: one for name, one in model.named_parameters() if name.endswith(ends)}
        assert found
        with torch.no_grad():
            for one in found.values():
                shape = tuple(one.shape)
                if rank is None:
                    one.add_(torch.randn(shape, generator=stream) * size)
                else:
                    left, right = (torch.randn(n, generator=stream) for n in ((shape[0], rank), (rank, shape[1])))
                    one.add_(left @ right * size)
        return model

    return tune


@pytest.fixture
def pair(saved, tuned):
    """The folders of a tiny Llama and of what became of it."""
    base = saved(tiny_llama(), "base")
    return base, saved(tuned(tiny_llama(), "q_proj.weight", "down_proj.weight", rank=3), "tuned")
