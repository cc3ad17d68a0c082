import logging
import textwrap
import threading
import time
import types
from concurrent.futures import ThreadPoolExecutor

import attrs
import pytest

from adapterkit import BrokenPluginError, LayerMethod, Method, Metric, PluginClashError, UnknownNameError, hookimpl
from adapterkit.discovery import Found
from adapterkit.registry import Registry


@attrs.frozen
class Options:
    strength: int = 1


class Doubling(Method):
    def configure(self, config, sites):
        return attrs.evolve(config, strength=config.strength * 2)


def plugin_of(*records, name="made_here"):
    module = types.ModuleType(name)

    @hookimpl
    def adapterkit_methods():
        return records

    module.adapterkit_methods = adapterkit_methods
    return module


def found(name, plugin=None, distribution="dist", problem=""):
    def load():
        if isinstance(plugin, Exception):
            raise plugin
        return plugin

    return Found(name, f"module_{name}", distribution, "1.0", load, problem)


def registry(*entries, **environ):
    return Registry(entries, environ)


def state(registry, name):
    (info,) = [info for info in registry.plugins() if info.name == name]
    return info


def test_a_method_is_found_by_the_name_of_its_entry_point_and_no_other_plugin_is_loaded():
    method = Doubling("two", Options)
    plugins = registry(found("two", plugin_of(method)), found("other", RuntimeError("must not be loaded")))
    assert plugins.method("two") is method
    assert state(plugins, "two").state == "loaded"
    assert state(plugins, "two").provides == ("method two",)
    assert state(plugins, "other").state == "available"


def test_a_method_is_found_in_a_plugin_of_another_name():
    method = Doubling("two", Options)
    assert registry(found("several", plugin_of(method))).method("two") is method


def test_a_broken_plugin_stays_listed_with_its_reason_and_stops_no_other():
    method = Doubling("two", Options)
    plugins = registry(
        found("ia3", ModuleNotFoundError("No module named 'nope'", name="nope")), found("two", plugin_of(method))
    )
    plugins.load_all()
    assert plugins.method("two") is method
    assert state(plugins, "ia3").state == "broken"
    assert "No module named 'nope'" in state(plugins, "ia3").reason
    assert "pip install nope" in state(plugins, "ia3").reason
    with pytest.raises(UnknownNameError, match=r"dist 1\.0 provides it, but is broken: ModuleNotFoundError"):
        plugins.method("ia3")


def test_strict_raises_on_a_broken_plugin():
    with pytest.raises(BrokenPluginError, match="boom"):
        registry(found("bad", RuntimeError("boom")), ADAPTERKIT_STRICT="1").load_all()


def test_an_unknown_name_gets_a_suggestion():
    plugins = registry(found("two", plugin_of(Doubling("lora", Options))))
    with pytest.raises(UnknownNameError, match="no method 'lroa'; did you mean 'lora'"):
        plugins.method("lroa")


def test_two_distributions_with_one_entry_point_name_are_both_named():
    first, second = plugin_of(Doubling("two", Options)), plugin_of(Doubling("two", Options))
    plugins = registry(found("two", first, "alpha"), found("two", second, "beta"))
    with pytest.raises(UnknownNameError, match="alpha and by beta"):
        plugins.method("two")
    chosen = registry(found("two", first, "alpha"), found("two", second, "beta"), ADAPTERKIT_DISABLE="beta")
    assert chosen.method("two").name == "two"


def test_two_plugins_with_one_method_name_are_both_named():
    plugins = registry(
        found("one", plugin_of(Doubling("two", Options), name="a"), "alpha"),
        found("other", plugin_of(Doubling("two", Options), name="b"), "beta"),
    )
    with pytest.raises(PluginClashError, match=r"one \(alpha\) and by other \(beta\).*ADAPTERKIT_DISABLE"):
        plugins.method("two")


def test_plugins_can_be_left_out_and_picked():
    entries = [found("one", plugin_of(Doubling("one", Options))), found("two", plugin_of(Doubling("two", Options)))]
    without = registry(*entries, ADAPTERKIT_DISABLE="one")
    assert [method.name for method in without.methods()] == ["two"]
    only = registry(*entries, ADAPTERKIT_PLUGINS="one, three")
    assert [method.name for method in only.methods()] == ["one"]
    assert "not named in ADAPTERKIT_PLUGINS" in state(only, "two").reason


def test_a_misspelt_hook_is_an_error():
    module = types.ModuleType("typo")

    @hookimpl
    def adapterkit_methds():
        return []

    module.adapterkit_methds = adapterkit_methds
    with pytest.raises(BrokenPluginError, match="no hook 'adapterkit_methds'; did you mean 'adapterkit_methods'"):
        registry().add(module)


def test_a_plugin_that_marks_nothing_is_an_error():
    module = types.ModuleType("unmarked")
    module.adapterkit_methods = lambda: [Doubling("two", Options)]
    with pytest.raises(BrokenPluginError, match="marks no hook: put @hookimpl above"):
        registry().add(module)


def test_a_record_that_is_returned_instead_of_yielded_is_an_error():
    module = types.ModuleType("returning")

    @hookimpl
    def adapterkit_methods():
        return Doubling("two", Options)

    module.adapterkit_methods = adapterkit_methods
    with pytest.raises(BrokenPluginError, match="must yield Method records, and returned one"):
        registry().add(module)


@pytest.mark.parametrize(
    ("record", "said"),
    [
        ("lora", "must yield Method records"),
        (Method("loose", attrs.make_class("Loose", {"x": attrs.field(default=1, type=int)})), "frozen attrs class"),
        (Method("bare", type("Bare", (Options,), {})), r"frozen attrs class \(@attrs\.frozen\), not"),
        (Method("taken", attrs.make_class("Taken", {"seed": attrs.field(default=1, type=int)}, frozen=True)), "seed"),
        (Method("wishing", Options, defaults={"learning_rat": 1.0}), "learning_rat"),
    ],
)
def test_a_record_that_would_fail_later_is_refused_at_once(record, said):
    plugins = registry()
    with pytest.raises(BrokenPluginError, match=said):
        plugins.add(plugin_of(record))
    assert plugins.plugins() == ()
    assert plugins.methods() == ()


def test_a_plugin_may_be_a_file(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(
        textwrap.dedent("""
        import attrs
        from adapterkit import Method, hookimpl

        @attrs.frozen
        class Config:
            size: int = 1

        @hookimpl
        def adapterkit_methods():
            yield Method("mine", Config)
        """)
    )
    plugins = registry()
    assert plugins.add(file).provides == ("method mine",)
    assert plugins.method("mine").config(2).size == 2
    file.write_text("import nothing_of_that_name")
    with pytest.raises(BrokenPluginError, match="nothing_of_that_name"):
        registry().add(file)
    with pytest.raises(BrokenPluginError, match="no plugin file"):
        registry().add(tmp_path / "absent.py")


def test_an_operation_asks_its_own_method_alone_and_others_may_wrap_it():
    one, two = Doubling("one", Options), Doubling("two", Options)
    plugins = registry(found("one", plugin_of(one)), found("two", plugin_of(two, name="other")))
    plugins.load_all()
    assert plugins.call("configure", one, config=Options(3), sites=()) == Options(6)
    seen = []
    wrapper = types.ModuleType("wrapper")

    @hookimpl(wrapper=True)
    def adapterkit_configure(method, config):
        seen.append((method.name, config.strength))
        return attrs.evolve((yield), strength=100)

    wrapper.adapterkit_configure = adapterkit_configure
    plugins.add(wrapper)
    assert plugins.call("configure", two, config=Options(3), sites=()) == Options(100)
    assert seen == [("two", 3)]


def test_a_listener_that_fails_is_logged_and_the_others_are_told(caplog):
    told = []

    class Failing:
        @hookimpl
        def adapterkit_adapter_loaded(self, adapter):
            raise RuntimeError("listener is ill")

    class Listening:
        @hookimpl
        def adapterkit_adapter_loaded(self, adapter):
            told.append(adapter)

    plugins = registry()
    plugins.add(Listening())
    plugins.add(Failing())
    with caplog.at_level(logging.ERROR, logger="adapterkit"):
        plugins.notify("adapterkit_adapter_loaded", adapter="it")
    assert told == ["it"]
    assert "Failing" in caplog.text
    assert "listener is ill" in caplog.text


def test_metrics_of_several_plugins_are_collected():
    class One:
        @hookimpl
        def adapterkit_metrics(self):
            yield Metric(name="b", compute=lambda got, expected: {"b": 1.0})
            yield Metric(name="a", compute=lambda got, expected: {"a": 1.0})

    plugins = registry()
    plugins.add(One())
    assert [metric.name for metric in plugins.metrics()] == ["a", "b"]


def test_the_bundled_plugins_come_through_their_entry_points():
    plugins = Registry(environ={})
    info = state(plugins, "lora")
    assert (info.distribution, info.module, info.state) == ("adapterkit", "adapterkit_lora", "available")
    assert isinstance(plugins.method("lora"), LayerMethod)


def test_many_threads_that_look_for_a_method_load_its_plugin_once():
    for _ in range(5):
        calls, barrier = [], threading.Barrier(8)

        def slow(calls=calls):
            calls.append(1)
            time.sleep(0.01)
            return plugin_of(Doubling("two", Options))

        plugins = Registry([Found("two", "module_two", "dist", "1.0", slow)], {})

        def work(plugins=plugins, barrier=barrier):
            barrier.wait()
            return plugins.method("two").name

        with ThreadPoolExecutor(8) as pool:
            assert [done.result() for done in [pool.submit(work) for _ in range(8)]] == ["two"] * 8
        assert calls == [1]
        assert state(plugins, "two").state == "loaded"


@pytest.mark.parametrize("name", ["columns", "output", "data", "dtype", "format", "quantize", "double_quant"])
def test_an_option_that_train_itself_would_take_is_refused(name):
    config = attrs.make_class("Taken", {name: attrs.field(default=1, type=int)}, frozen=True)
    with pytest.raises(BrokenPluginError, match=f"'{name}'.*words of train itself"):
        registry().add(plugin_of(Method("taking", config)))


def test_the_words_of_train_are_those_that_it_takes():
    import inspect

    from adapterkit.cli import train as command
    from adapterkit.contracts.checking import OF_THE_BASE, RESERVED
    from adapterkit.train.jobs import TRAIN_TAKES
    from adapterkit.train.run import train

    signatures = [inspect.signature(one).parameters for one in (train, command._train)]
    taken = {*TRAIN_TAKES, *(name for parameters in signatures for name in parameters)} - {"options"}
    assert taken <= RESERVED | OF_THE_BASE
