import adapterkit
from adapterkit import errors


def test_every_error_is_also_the_builtin_that_a_caller_would_expect():
    builtins = (ValueError, LookupError, RuntimeError, OSError)
    leaves = [getattr(errors, name) for name in errors.__all__ if name.endswith("Error") and name != "AdapterkitError"]
    assert len(leaves) > 10
    for leaf in leaves:
        assert issubclass(leaf, errors.AdapterkitError)
        assert issubclass(leaf, builtins), leaf


def test_a_name_that_is_nearly_right_gets_a_suggestion():
    error = errors.UnknownNameError("method", "lroa", ["lora", "full"])
    assert str(error) == "no method 'lroa'; did you mean 'lora'? Available: full, lora."


def test_a_name_without_its_family_gets_the_one_with_it():
    error = errors.UnknownNameError("method", "IA3", ["lora", "peft:ia3", "peft:vera"])
    assert str(error).startswith("no method 'IA3'; did you mean 'peft:ia3'? Available: lora, peft:ia3, peft:vera.")


def test_every_public_name_can_be_imported_and_nothing_else_is_promised():
    for name in adapterkit.__all__:
        assert getattr(adapterkit, name) is not None
    assert sorted(adapterkit.__all__) == adapterkit.__dir__()
    assert set(adapterkit._HOMES) | {"__version__"} == set(adapterkit.__all__)
