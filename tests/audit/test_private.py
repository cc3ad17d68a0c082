"""Personal data and secrets: what is found, what is not, and that no output shows it."""

import importlib
import io
import json

import pytest
from rich.console import Console

from adapterkit.audit import audit
from adapterkit.audit.needs import MissingLibraryError, need
from adapterkit.audit.personal import PersonalData
from adapterkit.audit.terminal import show
from adapterkit.credentials import Secrets

REGIONS = ("US", "GB", "DE", "FR", "IN")
KEY = "-----BEGIN RSA PRIVATE KEY-----\nMIIEpAIBAAKCAQEA\n-----END RSA PRIVATE KEY-----"
# put together here, so that no scanner takes this file for a leak
TOKENS = {
    "AWS Access Key": "AKIA" + "IOSFODNN7EXAMPLF",
    "Anthropic API Key": "sk-ant-" + "api03-" + "aB3" * 31 + "AA",
    "GitHub Token": "ghp_" + "aB3d" * 9,
    "Google API Key": "AIza" + "SyB3d" * 7,
    "Hugging Face Token": "hf_" + "aBcDeFgHiJkLmNoPqRsTuVwXyZaBcDeFgH",
    "JSON Web Token": "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9PlFUP0THsR8U",
    "OpenAI Token": "sk-proj-" + "aB3_" * 12,
    "Private Key": KEY,
    "Slack Token": "xoxb-" + "123456789012-abcdefABCDEF",
    "Stripe Access Key": "sk_live_" + "aB3d" * 6,
}


def found(text, regions=REGIONS):
    return [(match.kind, text[match.start : match.end]) for match in PersonalData(regions).find(text)]


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("e-mail address", "ada.lovelace+maths@example.co.uk"),
        ("e-mail address", "jürgen@müller.de"),
        ("phone number", "+41 44 668 18 00"),
        ("phone number", "(212) 664-7665"),
        ("phone number", "07911 123456"),
        ("card number", "4111 1111 1111 1111"),
        ("card number", "5555555555554444"),
        ("card number", "3782-822463-10005"),
        ("IBAN", "GB82 WEST 1234 5698 7654 32"),
        ("IBAN", "DE89370400440532013000"),
        ("US social security number", "536-22-8726"),
        ("IP address", "8.8.8.8"),
        ("IP address", "2001:4860:4860::8888"),
    ],
)
def test_personal_data_is_found_wherever_it_stands(kind, value):
    for text in (value, f"It is {value}, I think.", f"({value})", f"A: {value}\nB"):
        ((seen, where),) = found(text)
        assert seen == kind
        assert where.strip("()") == value.strip("()")  # a bracket may belong to a number


@pytest.mark.parametrize(
    "text",
    [
        "Version 1.2.3 of 10.0.0.1 at 192.168.1.1 and 12:30:45",
        "My order 4111111111111112 of 2024-05-17",  # a wrong check digit
        "GB83 WEST 1234 5698 7654 32",  # likewise
        "000-22-8726 and 666-22-8726",  # never given out
        "user@host, @someone, a@b.c1 and x = y @ z",
        "Call 999 or 12345; it costs 1,234,567.89 in 2023",
        "Euler wrote 2.718281828459045235",
        "1111 1111 1111 1117",
    ],
)
def test_what_only_looks_like_personal_data_is_not(text):
    assert found(text) == []


def test_regions_decide_which_national_numbers_are_found():
    assert found("ring 030 901820", regions=("DE",)) == [("phone number", "030 901820")]
    assert found("ring 030 901820", regions=()) == []
    assert found("ring +49 30 901820", regions=()) == [("phone number", "+49 30 901820")]


@pytest.mark.parametrize("kind", TOKENS)
def test_secrets_are_found(kind):
    text = f"use {TOKENS[kind]} for it"
    matches = list(Secrets().find(text))
    assert [match.kind for match in matches] == [kind]
    assert TOKENS[kind].startswith(text[matches[0].start : matches[0].end][:20])


@pytest.mark.parametrize(
    "text",
    ["my password is wrong", "password: please reset it", "the secret of 3f786850e387550fdab836ed7e6dc881de23001b"],
)
def test_talk_of_secrets_is_none(text):
    assert list(Secrets().find(text)) == []


def rows():
    private = ["ada@example.com", "4111 1111 1111 1111", TOKENS["GitHub Token"], "07911 123456"]
    asked = [
        {"prompt": f"I am {value}, where is my card number {i}?", "completion": "It is on its way."}
        for i, value in enumerate(private)
    ]
    labels = [{"prompt": f"{value}!", "completion": value} for value in private]
    return private, [*asked, *asked, *labels, {"prompt": "?", "completion": f"[{private[0]}"}]


def test_no_output_shows_what_was_found():
    private, data = rows()
    result = audit(None, data, eval_data=data[:6], near_duplicates=0.3)
    assert result["personal-data"].severity == "serious"
    assert result["personal-data"].counts == {"card number": 4, "e-mail address": 5, "phone number": 4}
    assert result["secrets"].counts == {"GitHub Token": 4}
    assert {"exact-duplicates", "evaluation-overlap"} <= {finding.name for finding in result.findings}
    lines = io.StringIO()
    show(result, Console(file=lines, width=200))
    for output in (json.dumps(result.to_json(), ensure_ascii=False), result.html(), lines.getvalue()):
        assert not [value for value in private if value in output]
        assert "[e-mail address]" in output
    assert result["personal-data"].examples[0].note == "e-mail address a… (15 characters)"


def test_a_reason_that_quotes_a_row_is_blacked_out():
    data = [
        {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yes"}]},
        {"messages": "[ada@example.com"},
    ]
    result = audit(None, data)
    assert result["unusable-rows"].count == 1
    assert "ada@example" not in json.dumps(result.to_json())


@pytest.mark.parametrize(
    ("library", "module", "checks"),
    [
        ("phonenumbers", "phonenumbers", ["personal data"]),
        ("stdnum", "stdnum.luhn", ["personal data"]),
        ("datasketch", "datasketch", ["near duplicates"]),
    ],
)
def test_what_was_not_checked_is_said(monkeypatch, library, module, checks):
    real = importlib.import_module

    def without(name):
        if name == module:
            raise ModuleNotFoundError(name)
        return real(name)

    monkeypatch.setattr("adapterkit.audit.needs.importlib.import_module", without)
    private, data = rows()
    result = audit(None, data)
    said = [finding.explanation for finding in result.findings if finding.name == "not-checked"]
    for check in checks:
        assert f"Left out: {check}, as {library} is not installed: pip install 'adapterkit[audit]'." in said
        assert check not in result.made
    if library != "datasketch":  # who cannot tell what is private shows nothing of a row
        output = json.dumps(result.to_json())
        assert not [value for value in private if value in output]
        assert "where is my card" not in output
        assert "rows[4]" in output


def test_a_library_that_lacks_one_of_its_own_says_which(tmp_path, monkeypatch):
    (tmp_path / "half_a_library.py").write_text("import its_other_half\n", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(MissingLibraryError, match=r"^its_other_half$"):
        need("half_a_library")
