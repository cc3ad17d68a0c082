"""Repositories of the test Hub, as huggingface_hub's own client sees them."""

import pytest
from huggingface_hub import HfApi
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from adapterkit.testing.hub import Hub


@pytest.fixture
def hub():
    with Hub(xet=False) as made:
        yield made


@pytest.fixture
def api(hub):
    return HfApi(endpoint=hub.url, token=hub.token)


@pytest.fixture
def stranger(hub):
    return HfApi(endpoint=hub.url, token=False)


def status(caught):
    return caught.value.response.status_code


def test_a_repository_is_made_once(hub, api):
    url = api.create_repo("org/name", private=True)
    assert (url, url.repo_id) == (f"{hub.url}/org/name", "org/name")
    with pytest.raises(HfHubHTTPError, match="already created") as caught:
        api.create_repo("org/name")
    assert status(caught) == 409
    assert api.create_repo("org/name", exist_ok=True) == url
    assert hub.repository("org/name").private


def test_a_repository_without_an_organisation_belongs_to_the_user(api):
    assert api.create_repo("name").repo_id == f"{api.whoami()['name']}/name"


def test_it_starts_with_one_commit(api):
    api.create_repo("org/name")
    (first,) = api.list_repo_commits("org/name")
    assert api.model_info("org/name").sha == first.commit_id
    assert api.list_repo_files("org/name") == [".gitattributes"]


def test_a_deleted_repository_is_gone(api):
    api.create_repo("org/name")
    api.delete_repo("org/name")
    assert not api.repo_exists("org/name")
    with pytest.raises(RepositoryNotFoundError) as caught:
        api.model_info("org/name")
    assert status(caught) == 404
    with pytest.raises(RepositoryNotFoundError):
        api.delete_repo("org/name")
    api.delete_repo("org/name", missing_ok=True)


def test_a_private_repository_does_not_exist_for_strangers(hub, api, stranger, tmp_path):
    api.create_repo("org/name", private=True)
    for look in (stranger.model_info, stranger.list_repo_refs, stranger.list_repo_files):
        with pytest.raises(RepositoryNotFoundError) as caught:
            look("org/name")
        assert status(caught) == 401
    with pytest.raises(RepositoryNotFoundError):
        stranger.hf_hub_download("org/name", ".gitattributes", cache_dir=tmp_path)
    assert not list(stranger.list_models(author="org"))
    reader = HfApi(endpoint=hub.url, token=hub.read_token)
    assert reader.hf_hub_download("org/name", ".gitattributes", cache_dir=tmp_path)
    assert [model.id for model in reader.list_models(author="org")] == ["org/name"]


def test_visibility_can_be_changed(api, stranger):
    api.create_repo("org/name", private=True)
    api.update_repo_settings("org/name", private=False)
    assert stranger.model_info("org/name").private is False


def test_files_of_a_gated_repository_need_a_token(api, stranger, tmp_path):
    api.create_repo("org/name")
    api.update_repo_settings("org/name", gated="auto")
    assert stranger.model_info("org/name").gated == "auto"
    with pytest.raises(GatedRepoError):
        stranger.hf_hub_download("org/name", ".gitattributes", cache_dir=tmp_path)


def test_writing_needs_a_token_that_may_write(hub, api, stranger):
    api.create_repo("org/name")
    with pytest.raises(HfHubHTTPError) as caught:
        stranger.create_tag("org/name", tag="v1")
    assert status(caught) == 401
    reader = HfApi(endpoint=hub.url, token=hub.read_token)
    for attempt in (
        lambda: reader.create_tag("org/name", tag="v1"),
        lambda: reader.create_repo("org/other"),
        lambda: reader.delete_repo("org/name"),
        lambda: reader.upload_file(path_or_fileobj=b"x", path_in_repo="x", repo_id="org/name"),
    ):
        with pytest.raises(HfHubHTTPError) as caught:
            attempt()
        assert status(caught) == 403
    assert set(hub.repositories) == {"org/name"}
    assert not hub.repository("org/name").tags


def test_a_wrong_token_is_refused_even_for_what_is_public(hub, api):
    api.create_repo("org/name")
    with pytest.raises(HfHubHTTPError, match="Invalid credentials") as caught:
        HfApi(endpoint=hub.url, token="hf_wrong").model_info("org/name")
    assert status(caught) == 401


def test_tags_stand_for_commits(hub, api):
    api.create_repo("org/name")
    first = api.model_info("org/name").sha
    api.create_tag("org/name", tag="v1", tag_message="the first")
    second = api.upload_file(path_or_fileobj=b"x", path_in_repo="x", repo_id="org/name").oid
    api.create_tag("org/name", tag="v2", revision=second)
    assert {ref.name: ref.target_commit for ref in api.list_repo_refs("org/name").tags} == {"v1": first, "v2": second}
    assert api.model_info("org/name", revision="v1").sha == first
    with pytest.raises(HfHubHTTPError) as caught:
        api.create_tag("org/name", tag="v1")
    assert status(caught) == 409
    api.create_tag("org/name", tag="v1", exist_ok=True)
    assert hub.repository("org/name").tags["v1"] == first
    api.delete_tag("org/name", tag="v1")
    with pytest.raises(RevisionNotFoundError):
        api.delete_tag("org/name", tag="v1")
    with pytest.raises(RevisionNotFoundError):
        api.model_info("org/name", revision="v1")


@pytest.mark.parametrize("name", ["", "..", "a b", "a..b", "/a", "a/", "-a", "x.lock", "a~1", "a:b"])
def test_tags_have_names_that_git_takes(api, name):
    api.create_repo("org/name")
    with pytest.raises(HfHubHTTPError) as caught:
        api.create_tag("org/name", tag=name)
    assert status(caught) == 400


def test_branches_go_their_own_ways(hub, api):
    api.create_repo("org/name")
    api.create_branch("org/name", branch="work/one")
    api.upload_file(path_or_fileobj=b"x", path_in_repo="x", repo_id="org/name", revision="work/one")
    assert api.list_repo_files("org/name", revision="work/one") == [".gitattributes", "x"]
    assert api.list_repo_files("org/name") == [".gitattributes"]
    api.delete_branch("org/name", branch="work/one")
    assert [ref.name for ref in api.list_repo_refs("org/name").branches] == ["main"]
    with pytest.raises(HfHubHTTPError) as caught:
        api.delete_branch("org/name", branch="main")
    assert status(caught) == 403


def test_a_revision_that_is_not_there(api, tmp_path):
    api.create_repo("org/name")
    for look in (
        lambda: api.model_info("org/name", revision="v9"),
        lambda: api.list_repo_files("org/name", revision="0" * 40),
        lambda: api.snapshot_download("org/name", revision="v9", cache_dir=tmp_path),
        lambda: api.create_tag("org/name", tag="v1", revision="v9"),
        lambda: api.upload_file(path_or_fileobj=b"x", path_in_repo="x", repo_id="org/name", revision="v9"),
    ):
        with pytest.raises(RevisionNotFoundError):
            look()


def test_the_card_says_what_is_in_the_repository(api):
    card = b"---\nlicense: mit\nlibrary_name: peft\nbase_model: org/base\nbase_model_relation: adapter\ntags: [lora]\n---\n# Hi\n"
    api.create_repo("org/name")
    api.upload_file(path_or_fileobj=card, path_in_repo="README.md", repo_id="org/name")
    info = api.model_info("org/name")
    assert (info.card_data.license, info.card_data.base_model, info.library_name) == ("mit", "org/base", "peft")
    assert {"lora", "license:mit", "base_model:adapter:org/base"} <= set(info.tags)


@pytest.mark.parametrize(
    ("front", "said"),
    [
        ("license: [", "while parsing"),
        ("- a\n- b", "no mapping"),
        ("tags: lora", "tags"),
        ("base_model: /tmp/base dir", "base_model"),
    ],
)
def test_a_card_that_the_hub_would_refuse_is_refused_before_any_upload(hub, api, front, said):
    api.create_repo("org/name")
    with pytest.raises(ValueError, match=said):
        api.upload_file(path_or_fileobj=f"---\n{front}\n---\n".encode(), path_in_repo="README.md", repo_id="org/name")
    assert len(hub.repository("org/name").commits()) == 1


def test_the_log_of_requests_has_no_token(hub, api):
    api.create_repo("org/name")
    (seen,) = hub.requests
    assert (seen.place, seen.method, seen.path, seen.status) == ("hub", "POST", "/api/repos/create", 200)
    assert seen.authorized
    assert hub.token not in f"{hub!r} {hub.requests} {hub.repositories}"


def test_a_repository_that_tests_ask_for_and_that_is_not_there(hub, api):
    api.create_repo("org/name")
    with pytest.raises(LookupError, match="no repository 'org/nome'; there are: org/name"):
        hub.repository("org/nome")


def test_what_the_hub_does_not_know_is_said(hub, api):
    with pytest.raises(HfHubHTTPError, match="The test Hub has no route for GET /api/daily_papers"):
        list(api.list_daily_papers())


def test_two_hubs_share_nothing(hub, api):
    with Hub() as other:
        HfApi(endpoint=other.url, token=other.token).create_repo("org/name")
        assert not api.repo_exists("org/name")
        assert other.token != hub.token


def test_a_hub_that_is_over_answers_nobody():
    with Hub() as hub:
        api = HfApi(endpoint=hub.url, token=hub.token)
        api.create_repo("org/name")
    with pytest.raises(Exception, match=r"[Cc]onnect|refused"):
        api.model_info("org/name", timeout=5)
