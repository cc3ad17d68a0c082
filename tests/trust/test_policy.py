"""A policy says what it means, and what it does not name is refused."""

import os

import pytest

from adapterkit import ConfigError, TrustError
from adapterkit.trust import Policy, current_policy
from tests.trust.keys import write_policy

PUBLIC = "-----BEGIN PUBLIC KEY-----\nMFkw\n-----END PUBLIC KEY-----\n"
COMMIT = "4f0c2a81e0f24b0b9d3b6a3fdfd0d7e6a1b2c3d4"


@pytest.fixture
def policy(tmp_path):
    def made(*sources, text=""):
        path = write_policy(tmp_path, *((source, ()) for source in sources))
        path.write_text(path.read_text() + text)
        return Policy.load(path)

    return made


def lets_in(policy, origin):
    try:
        policy.check(origin)
    except TrustError:
        return False
    return True


# -- what a pattern names ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pattern", "origin", "named"),
    [
        ("hf://org/cards", "hf://org/cards", True),
        ("hf://org/cards", f"hf://org/cards@{COMMIT}", True),
        ("hf://org/cards", "hf://org/cards/", True),
        ("hf://org/cards", "HF://org/cards", True),
        ("hf://org/cards", "hf://org/cards2", False),
        ("hf://org/cards", "hf://org/cards/more", False),
        ("hf://org/cards", "s3://org/cards", False),
        ("hf://org/*", "hf://org/cards", True),
        ("hf://org/*", "hf://org/a/b", False),
        ("hf://org/*", "hf://org2/cards", False),
        ("hf://org/*", "hf://org", False),
        ("hf://org/*", "hf://other/x@hf://org/cards", False),
        ("hf://org/card-*", "hf://org/card-1", True),
        ("hf://org/card-*", "hf://org/cards", False),
        ("hf://org/card-*", "hf://org/card-1/x", False),
        ("hf://*/cards", "hf://anybody/cards", True),
        ("hf://*/cards", "hf://a/b/cards", False),
        ("hf://**", "hf://org/cards", True),
        ("hf://**", "s3://org/cards", False),
        ("s3://bucket/**", "s3://bucket/a/b/c", True),
        ("s3://bucket/**", "s3://bucket-2/a", False),
        ("s3://bucket/**/cards", "s3://bucket/a/b/cards", True),
        ("s3://bucket/a.b", "s3://bucket/axb", False),
        ("s3://bucket/a[0-9]", "s3://bucket/a1", False),
        ("s3://bucket/a[0-9]", "s3://bucket/a[0-9]", True),
        ("s3://bucket/a?", "s3://bucket/ab", False),
        (f"hf://org/cards@{COMMIT}", f"hf://org/cards@{COMMIT}", True),
        (f"hf://org/cards@{COMMIT}", f"hf://org/cards@{COMMIT[:-1]}5", False),
        (f"hf://org/cards@{COMMIT}", "hf://org/cards@main", False),
        (f"hf://org/cards@{COMMIT}", "hf://org/cards", False),
        ("sftp://me@host/cards", "sftp://me@host/cards@abc", True),
        ("sftp://me@host/cards", "sftp://you@host/cards", False),
        ("local", "", True),
        ("local", "local", True),
        ("local", "/local", False),
        ("local", "hf://local/local", False),
        ("/srv/runs/*", "/srv/runs/cards", True),
        ("/srv/runs/*", "/srv/runs", False),
        ("/srv/runs/*", "/srv/runs/a/b", False),
        ("/srv/runs/*", "/srv/runs/../secret/x", False),
        ("/srv/runs/*", "/srv/runs-2/x", False),
        ("/srv/runs/**", "/srv/runs/a/b", True),
        ("/srv/runs/**", "/srv/runs/a/../../etc", False),
        ("/**", "/anything/at/all", True),
        ("/**", "hf://org/cards", False),
        ("/**", "", False),
        ("file:///srv/runs/*", "file:///srv/runs/cards@abc", True),
        ("file:///srv/runs/*", "/srv/runs/cards", False),
        ("/srv/runs/*", "file:///srv/runs/cards", False),
    ],
)
def test_a_pattern_names_what_it_seems_to_and_nothing_else(policy, pattern, origin, named):
    assert lets_in(policy(pattern), origin) is named


@pytest.mark.parametrize("case", ["hf://Org/cards", "hf://org/CARDS"])
def test_what_differs_by_case_alone_is_refused_and_not_left_to_a_later_rule(policy, case):
    """Many places take both for the same: a rule for everything would let in unsigned what the first wants signed."""
    held = policy("hf://org/cards", "hf://**")
    with pytest.raises(TrustError, match="by case alone"):
        held.check(case)


@pytest.mark.parametrize(
    "origin",
    [
        "hf://org/../other/cards",
        "hf://org//cards",
        "hf://org/./cards",
        "hf://",
        "s3://bucket/a/..",
        "hf://org/a\0b",
        "s3:///../x",
        "hf:///org/cards",
        "s3:///bucket/cards",
    ],
)
def test_an_origin_that_can_be_read_in_two_ways_is_refused_even_where_all_is_allowed(policy, origin):
    with pytest.raises(TrustError, match="not written plainly"):
        policy("hf://**", "s3://**").check(origin)


@pytest.mark.parametrize(
    "origin",
    [
        "s3://key:canary@bucket/cards",
        "s3://key:canary@bucket/cards@abc",
        "S3://key:canary@bucket/cards",
        "s3://key:can/canary@bucket/cards",
        "s3://key:1234/canary@bucket/cards",
        "s3://key:can@canary@bucket/cards",
        "s3://:canary@bucket",
        "s3://key:canary:can@bucket/cards",
        "s3://k:canary\n@bucket/cards",
    ],
)
def test_a_password_in_an_origin_is_refused_and_not_repeated(policy, origin):
    with pytest.raises(TrustError, match="password") as caught:
        policy("s3://**").check(origin)
    assert "canary" not in str(caught.value)


@pytest.mark.parametrize(
    "origin",
    [
        "s3://host:22/cards@abc",
        "s3://me@host:22/cards@abc",
        "s3://me@host/cards@abc",
        "s3://host:22/cards",
        "s3://[::1]:22/cards@abc",
        "s3://me@bucket/a:b@abc",
    ],
)
def test_a_port_is_no_password(policy, origin):
    assert lets_in(policy("s3://**"), origin)


def test_links_are_followed_before_a_rule_is_looked_for(policy, tmp_path):
    allowed, elsewhere = tmp_path / "allowed", tmp_path / "elsewhere"
    (elsewhere / "cards").mkdir(parents=True)
    (allowed / "plain").mkdir(parents=True)
    (allowed / "link").symlink_to(elsewhere / "cards")
    (tmp_path / "shortcut").symlink_to(allowed)
    held = policy(f"{allowed}/*")
    assert lets_in(held, allowed / "plain")
    assert lets_in(held, tmp_path / "shortcut" / "plain")
    assert not lets_in(held, allowed / "link")
    assert not lets_in(held, f"file://{allowed}/link")
    assert lets_in(policy(f"file://{allowed}/*"), f"file://{tmp_path}/shortcut/plain@abc")
    assert not lets_in(policy(f"file://{allowed}/*"), f"file://{allowed}/link@abc")
    assert lets_in(policy(f"{tmp_path}/shortcut/*"), allowed / "plain")  # where the rule's own folder leads


def test_links_of_what_was_found_before_are_not_followed_again(policy, tmp_path):
    (tmp_path / "allowed" / "cards").mkdir(parents=True)
    (tmp_path / "mallory").symlink_to(tmp_path / "allowed")
    for prefix in ("", "file://"):
        held = policy(f"{prefix}{tmp_path}/allowed/*")
        held.check(f"{prefix}{tmp_path}/allowed/cards", follow=False)
        with pytest.raises(TrustError, match=r"and not '.*mallory/cards'"):
            held.check(f"{prefix}{tmp_path}/mallory/cards", follow=False)
    with pytest.raises(TrustError, match="another folder wherever it is asked from"):
        held.check("allowed/cards", follow=False)
    with pytest.raises(TrustError, match="not written plainly"):
        held.check(f"{tmp_path}/mallory/../allowed/cards", follow=False)


def test_a_relative_url_is_refused_since_it_is_another_place_from_elsewhere(policy, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(TrustError, match="write the whole path"):
        policy(f"file://{tmp_path}/**").check("file://approved/cards@abc")


def test_a_home_folder_and_a_relative_path_are_what_they_are_elsewhere(policy, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert lets_in(policy("~/runs/*"), "runs/cards")
    assert not lets_in(policy("~/runs/*"), "other/cards")


def test_the_first_rule_that_names_a_source_decides(policy):
    held = policy(text='[[allow]]\nsource = "hf://org/draft-*"\n[[allow]]\nsource = "hf://org/*"\n')
    assert str(held.check("hf://org/draft-1")) == "hf://org/draft-*"
    assert str(held.check("hf://org/final")) == "hf://org/*"


def test_a_policy_without_rules_lets_nothing_in(policy):
    with pytest.raises(TrustError, match="names nothing, and not 'local'"):
        policy().check("")


def test_what_no_rule_names_is_refused_by_name(policy, tmp_path):
    with pytest.raises(TrustError, match=r"trust.toml' names 'hf://org/\*', 'local', and not 'hf://evil/cards@abc'"):
        policy("hf://org/*", "local").check("hf://evil/cards@abc")


def test_a_place_can_be_asked_for_before_its_revision_is_known(policy):
    held = policy(f"hf://org/cards@{COMMIT}")
    held.check_place("hf://org/cards@v1")
    held.check_place("hf://org/cards")
    with pytest.raises(TrustError, match="and not 'hf://org/other'"):
        held.check_place("hf://org/other")
    with pytest.raises(TrustError):
        held.check_place("hf://org/Cards")


# -- the file ---------------------------------------------------------------------------------------------------------


def problems_of(path):
    with pytest.raises(ConfigError) as caught:
        Policy.load(path)
    return "\n".join(caught.value.problems)


def test_everything_that_is_wrong_is_said_at_once(tmp_path):
    (tmp_path / "mine.pem").write_text("-----BEGIN EC PRIVATE KEY-----\ncanary\n")
    (tmp_path / "text.pub").write_text("hello")
    (tmp_path / "good.pub").write_text(PUBLIC)
    path = tmp_path / "trust.toml"
    path.write_text("""
        signer = 3
        [signers]
        release = "good.pub"
        mine = "mine.pem"
        text = "text.pub"
        gone = "gone.pub"
        odd = 3
        [[allow]]
        source = "hf://org/*"
        signer = ["release"]
        [[allow]]
        source = "hf://org/*"
        [[allow]]
        source = "hf://b/*"
        signers = ["releese"]
        [[allow]]
        signers = []
        [[allow]]
        source = "*"
        [[allow]]
        source = "hf://a/b**"
        [[allow]]
        source = "hf://a/../*"
        [[allow]]
        source = "s3://key:canary@bucket"
        signers = "release"
        [[allow]]
        source = 3
        [[allow]]
        source = "file://out/*"
    """)
    said = problems_of(path)
    for line in (
        "signer: no such field; did you mean 'signers'?",
        "signers.mine: 'mine.pem' is a private key",
        "signers.text: 'text.pub' is no public key",
        "signers.gone: 'gone.pub' cannot be read: No such file",
        "signers.odd: must be the file",
        "allow 1: signer: no such field; did you mean 'signers'?",
        "allow 3: signers: 'releese' is not in [signers]; did you mean 'release'?",
        "allow 4: source: is required",
        "allow 4: signers: must be a list of names; leave it out",
        "allow 5: source: must be 'local', a URL",
        "allow 6: source: ** stands alone",
        "allow 7: source: 'hf://a/../*' is not written plainly",
        "allow 8: source: a URL holds a password",
        "allow 8: signers: must be a list",
        "allow 9: source: must be a text",
        "allow 10: source: 'file://out/*' is another folder wherever it is asked from",
    ):
        assert line in said
    assert "canary" not in said


def test_a_rule_that_could_never_decide_is_an_error(tmp_path):
    path = write_policy(tmp_path, ("hf://org/*", ()), ("hf://org/*", ()))
    assert problems_of(path) == "allow 2: source: 'hf://org/*' has a rule before, which decides"


@pytest.mark.parametrize(
    "text", ["signers = 3", "allow = 3", "allow = [3]", '[allow]\nsource = "local"', "[[signers]]"]
)
def test_a_table_of_another_kind_is_an_error(tmp_path, text):
    path = tmp_path / "trust.toml"
    path.write_text(text)
    assert "must be" in problems_of(path)


@pytest.mark.parametrize("data", [b"= 3", b"\xff", b'[[allow]]\nsource = "a"\nsource = "b"'])
def test_a_file_that_is_not_toml_is_an_error(tmp_path, data):
    path = tmp_path / "trust.toml"
    path.write_bytes(data)
    assert "not TOML" in problems_of(path)


def test_keys_lie_beside_the_policy_or_where_a_whole_path_says(tmp_path):
    (tmp_path / "keys").mkdir()
    (tmp_path / "keys" / "a.pub").write_text(PUBLIC)
    path = tmp_path / "trust.toml"
    path.write_text(
        f'[signers]\na = "keys/a.pub"\nb = "{tmp_path}/keys/a.pub"\n[[allow]]\nsource = "local"\nsigners = ["b", "a"]\n'
    )
    held = Policy.load(path)
    assert list(held.keys(held.rules[0])) == ["b", "a"]
    assert {os.path.realpath(key) for key in held.signers.values()} == {os.path.realpath(tmp_path / "keys/a.pub")}


# -- which policy is in force -----------------------------------------------------------------------------------------


def test_without_a_variable_or_a_file_there_is_no_policy(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert current_policy({}) is None


def test_a_file_at_home_is_in_force_and_the_variable_goes_before_it(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".adapterkit").mkdir()
    write_policy(tmp_path / ".adapterkit", ("hf://home/*", ()))
    assert [str(rule) for rule in current_policy({}).rules] == ["hf://home/*"]
    named = write_policy(tmp_path, ("hf://named/*", ()))
    assert [str(rule) for rule in current_policy({"ADAPTERKIT_TRUST": str(named)}).rules] == ["hf://named/*"]
    assert [str(rule) for rule in current_policy({"ADAPTERKIT_TRUST": "~/trust.toml"}).rules] == ["hf://named/*"]


@pytest.mark.parametrize(
    ("value", "said"), [("", "set to nothing"), ("/no/such/file", "No such file"), ("/", "directory")]
)
def test_a_variable_that_names_no_policy_is_an_error_and_not_no_policy(value, said):
    with pytest.raises(ConfigError, match=said):
        current_policy({"ADAPTERKIT_TRUST": value})


def test_a_user_without_a_home_has_no_policy_there(monkeypatch):
    monkeypatch.setattr("os.path.expanduser", lambda path: path)  # as it is where nobody knows a home
    assert current_policy({}) is None


def test_a_link_at_home_that_leads_nowhere_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".adapterkit").mkdir()
    (tmp_path / ".adapterkit" / "trust.toml").symlink_to(tmp_path / "unmounted")
    with pytest.raises(ConfigError, match="cannot be read"):
        current_policy({})
