import ast
import inspect
import re
import textwrap

import attrs
import pytest

import adapterkit
from adapterkit import effects, errors, hooks, serving
from adapterkit.serving import http
from adapterkit.serving.http.prompts import ChatAsked, CompletionAsked
from tests.docs.pages import DOCS, README, ROOT, anchors, blocks, headings, links

REFERENCE = DOCS / "reference"
SPECIFIED = {name: function for name, function in vars(hooks).items() if name.startswith("adapterkit_")}
TESTS = "".join(
    path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py") if path.parent.name != "docs"
)
MARKDOWN = sorted(
    path for path in ROOT.rglob("*.md") if not any(part.startswith(".") for part in path.relative_to(ROOT).parts)
)


def documented(function):
    """How a hook's heading and signature read."""
    signature = inspect.signature(function)
    return f"`{function.__name__}({', '.join(signature.parameters)})`", f"{function.__name__}{unquoted(signature)}"


def unquoted(signature):
    return str(signature).replace("'", "")


def undocumented(function, page):
    heading, signature = documented(function)
    return heading not in headings(page) or signature not in page.splitlines()


def section(page, heading):
    """What stands below a heading of the third level, up to the next heading."""
    after = page.partition(f"\n### {heading}\n")[2]
    return re.split(r"^##", after, maxsplit=1, flags=re.MULTILINE)[0]


def implementations(code, name):
    """The functions called ``name`` in ``code``, by what they take beside ``self``."""
    found = [node for node in ast.walk(ast.parse(code)) if isinstance(node, ast.FunctionDef) and node.name == name]
    return [{argument.arg for argument in node.args.args} - {"self"} for node in found]


def shown(function, page):
    """The implementations of a hook in the blocks of its section, which tests/docs/test_pages.py runs."""
    code = [block.text for block in blocks(section(page, documented(function)[0])) if block.info == "python"]
    return [taken for text in code for taken in implementations(text, function.__name__)]


def unmentioned(names, text):
    return [name for name in names if not re.search(rf"\b{re.escape(name)}\b", text)]


def broken(page, text):
    """The relative links of a page that lead nowhere."""
    found = []
    for link in links(text):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve()
        aimed = text if not path else target.read_text(encoding="utf-8") if target.is_file() else ""
        if not target.exists() or (anchor and anchor not in anchors(aimed)):
            found.append(link)
    return found


@pytest.mark.parametrize("name", SPECIFIED)
def test_every_hook_is_documented_with_its_signature(name):
    assert not undocumented(SPECIFIED[name], (REFERENCE / "hooks.md").read_text(encoding="utf-8")), documented(
        SPECIFIED[name]
    )


@pytest.mark.parametrize("name", SPECIFIED)
def test_every_hook_has_an_example_that_runs(name):
    taken = shown(SPECIFIED[name], (REFERENCE / "hooks.md").read_text(encoding="utf-8"))
    assert taken, f"no `def {name}` in its section"
    assert all(words <= set(inspect.signature(SPECIFIED[name]).parameters) for words in taken)


@pytest.mark.parametrize("name", SPECIFIED)
def test_every_hook_says_when_it_is_called_what_to_return_and_shows_it(name):
    text, _, example = inspect.getdoc(SPECIFIED[name]).partition("Example::\n")
    (taken,) = implementations(textwrap.dedent(example), name)
    assert taken <= set(inspect.signature(SPECIFIED[name]).parameters)
    assert re.search(r"[Cc]alled |is about to|logged a record", text)
    assert re.search(r"[Rr]eturn", text)


def test_what_methods_are_made_of_is_documented():
    page = (REFERENCE / "hooks.md").read_text(encoding="utf-8")
    fields = [field.name for cls in (adapterkit.Method, adapterkit.Traits) for field in attrs.fields(cls)]
    answers = [name for name, value in vars(adapterkit.Method).items() if name.islower() and inspect.isfunction(value)]
    made = [name for name in effects.__all__ if isinstance(getattr(effects, name), type)]
    words = [*fields, *(name for name in answers if not name.startswith("_"))]
    assert [name for name in words if not re.search(rf"`{name}\b", page)] == []
    assert [name for name in made if f"| `{name}(" not in page] == []


@pytest.mark.parametrize("name", SPECIFIED)
def test_every_hook_has_a_test(name):
    assert not unmentioned([name], TESTS)


def test_every_hook_belongs_to_one_family():
    assert sorted(SPECIFIED) == sorted((*hooks.PROVIDERS, *hooks.OPERATION_HOOKS, *hooks.EVENTS))


def test_every_public_name_is_in_the_reference():
    text = "".join(page.read_text(encoding="utf-8") for page in REFERENCE.glob("*.md"))
    assert not unmentioned(adapterkit.__all__, text)


def test_every_public_name_for_serving_is_in_the_reference():
    text = (REFERENCE / "python.md").read_text(encoding="utf-8")
    told = [name for name, value in vars(serving.Watcher).items() if inspect.isfunction(value)]
    assert not unmentioned([*serving.__all__, *http.__all__, *told], text)


def test_the_page_on_serving_has_every_parameter_of_a_request():
    page = (REFERENCE / "serving.md").read_text(encoding="utf-8")
    table = page.partition("\n## Requests\n")[2].partition("\n## ")[0]
    assert not unmentioned({*ChatAsked.model_fields, *CompletionAsked.model_fields}, table)


def test_the_tree_of_errors_has_every_error():
    text = (REFERENCE / "errors.md").read_text(encoding="utf-8")
    assert not unmentioned([name for name in errors.__all__ if name.endswith("Error")], text)


def test_the_page_on_files_has_every_field_of_the_manifest():
    from adapterkit.artifact.record import _Layout

    text = (REFERENCE / "files.md").read_text(encoding="utf-8")
    assert not [field.name for field in attrs.fields(_Layout) if f"| `{field.name}` |" not in text]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_page_on_several_machines_has_every_option():
    pytest.importorskip("ray")
    from adapterkit.serving.ray import RayOptions

    text = (DOCS / "how-to" / "serve-on-several-machines.md").read_text(encoding="utf-8")
    rows = "".join(line.partition("|")[2].partition("|")[0] for line in text.splitlines() if line.startswith("| `"))
    assert not [field.name for field in attrs.fields(RayOptions) if f"`{field.name}`" not in rows]


@pytest.mark.parametrize("page", MARKDOWN, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_somewhere(page):
    assert not broken(page, page.read_text(encoding="utf-8"))


def test_every_page_is_on_the_map():
    listed = {(DOCS / link).resolve() for link in links((DOCS / "index.md").read_text(encoding="utf-8"))}
    assert not {page for page in DOCS.rglob("*.md") if page.name != "index.md"} - listed


# Each of these shows that a guard above can fail.


def test_a_hook_with_another_signature_is_found():
    page = (REFERENCE / "hooks.md").read_text(encoding="utf-8")
    hook = hooks.adapterkit_build
    assert undocumented(
        hook, page.replace("### `adapterkit_build(method, config, sites)`", "### `adapterkit_build(config)`")
    )
    assert undocumented(hook, page.replace("config: Any, sites: Sequence[Site]) -> Mapping", "config: Any) -> Mapping"))


def test_a_hook_with_no_example_of_its_own_is_found():
    page = (REFERENCE / "hooks.md").read_text(encoding="utf-8")
    assert shown(hooks.adapterkit_finish, page) == [{"config", "layers"}]
    assert shown(hooks.adapterkit_finish, page.replace("def adapterkit_finish", "def adapterkit_build")) == []


def test_a_name_that_is_not_mentioned_is_found():
    assert unmentioned(["Base", "Bases"], "the Base is frozen") == ["Bases"]


def test_a_broken_link_is_found():
    text = "[a](docs/index.md) [b](docs/none.md) [c](docs/index.md#nothing) [d](https://a.org) `[e](none)`\n# Here\n[f](#here)"
    assert broken(README, text) == ["docs/none.md", "docs/index.md#nothing"]
