"""A candidate is judged against the current champion, and is the model that the pull request showed."""

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from demo.fakes.github_server import GitHub, State
from slipway.artifacts import BUNDLE, CHAMPION, RELEASE, VERDICT, Release, Verdict
from slipway.bundle import folder_hash
from slipway.config import load_params
from slipway.errors import CheckFailed
from slipway.integrations.git import Snapshot, snapshot
from slipway.integrations.github_comments import CommentText
from slipway.release import review_lookup
from slipway.release.candidate import FILE, Candidate, champion_stays, clear
from slipway.release.model_card import CARD
from slipway.release.review_lookup import Review
from tests.slipway.conftest import ROOT, Repository
from tests.slipway.release.conftest import FEW_TREES, MAY_BE_WORSE, flags

Clone = Callable[[str], Repository]
IMAGE = "image: localhost:1/team/houses"


@pytest.fixture
def merged(judged: Clone) -> Repository:
    """A clone with the merged delivery 1997H2, whose model ships, and with release.image in params.yaml."""
    repository = judged("merged")
    for old, new in {"image: null": IMAGE, **FEW_TREES, **MAY_BE_WORSE}.items():
        repository.edit("params.yaml", old, new)
    repository.must("git", "checkout", "--quiet", "dvc.lock", "metrics")  # a pull request does not have to bring them
    repository.commit("Deliver 1997H2")
    return repository


def refused(repository: Repository, words: str, code: int = 1, **variables: str) -> None:
    result = repository.run("slipway", "candidate", **variables)
    assert result.code == code, result.out
    assert words in result.err
    assert not (repository.path / FILE).exists()


def test_candidate_that_may_ship_becomes_the_champion(merged: Repository) -> None:
    """Afterwards the pipeline compares the champion with itself, and finds its metrics."""
    merged.must("slipway", "candidate")
    candidate = Candidate.read(merged.path / FILE)
    release = Release.read(merged.path / RELEASE)
    tracked = yaml.safe_load((merged.path / "champion.dvc").read_text())["outs"][0]["md5"]
    assert folder_hash(merged.path / CHAMPION) == folder_hash(merged.path / BUNDLE) == release.champion
    provenance = candidate.provenance
    assert tracked == f"{provenance.bundle}.dir" == f"{release.champion}.dir"
    assert (release.verdict, provenance.verdict, provenance.reason) == ("ship", "ship", release.reason)
    assert f"{provenance.data}.dir" == yaml.safe_load((merged.path / "data.dvc").read_text())["outs"][0]["md5"]
    assert [provenance.commit, provenance.created] == merged.must("git", "show", "-s", "--format=%H %cI").split()
    after = Verdict.read(merged.path / VERDICT)
    assert (after.verdict, after.champion_bundle) == ("unchanged", provenance.bundle)
    assert after.decay is None  # on the rows of its own release
    assert "up to date" in merged.must("dvc", "status")
    assert "95% interval of the model" in (merged.path / FILE).with_name(CARD).read_text()

    again = merged.run("slipway", "candidate")  # against the champion of the last commit, not this one
    assert again.code == 0, again.err
    assert Candidate.read(merged.path / FILE) == candidate

    merged.edit("params.yaml", "max_iter: 20", "max_iter: 30")
    refused_for_edit = merged.run("slipway", "candidate")
    assert "params.yaml differs from the last commit" in refused_for_edit.err


def test_candidate_is_refused_if_the_model_is_held(merged: Repository) -> None:
    for margin, negative in MAY_BE_WORSE.items():
        merged.edit("params.yaml", negative, margin)
    merged.commit("Ask for a better model")
    refused(merged, "The model is held (mean absolute error rises by $")


def test_candidate_is_refused_if_the_registry_does_not_answer(merged: Repository) -> None:
    down = {"MLFLOW_TRACKING_URI": "http://127.0.0.1:1", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"}
    refused(merged, "The registry http://127.0.0.1:1 cannot be used", code=2, **down)
    assert (merged.path / RELEASE).read_text() == merged.must("git", "show", f"HEAD:{RELEASE}")


def test_candidate_is_the_champion_if_only_the_server_changed(clone: Clone, tmp_path: Path) -> None:
    """A change of metrics/release.json that no release made is refused."""
    repository = clone("first")
    repository.edit("params.yaml", "image: null", IMAGE)
    repository.commit("Say where images go")
    repository.must("git", "init", "--quiet", "--bare", str(tmp_path / "origin.git"))
    repository.must("git", "remote", "set-url", "origin", str(tmp_path / "origin.git"))
    repository.must("git", "push", "--quiet", "origin", "HEAD:main")
    repository.must("slipway", "candidate")
    candidate = Candidate.read(repository.path / FILE)
    assert (candidate.provenance.verdict, candidate.files) == ("first", ())
    repository.must("slipway", "promote", "production", *flags(1))
    repository.must("git", "pull", "--quiet", "origin", "main")
    nothing = repository.must("slipway", "candidate")
    assert "nothing to release: production runs this model and this server already" in nothing

    repository.edit("src/slipway/serving/settings.py", 'PREFIX = "SLIPWAY_"', 'PREFIX = "SLIPWAY_"  # another')
    repository.commit("Another server")
    repository.must("git", "push", "--quiet", "origin", "HEAD:main")
    repository.must("slipway", "candidate")
    assert (
        Candidate.read(repository.path / FILE).provenance.commit == repository.must("git", "rev-parse", "HEAD").strip()
    )
    repository.must("slipway", "promote", "production", *flags(2))
    repository.must("slipway", "rollback", "production")
    repository.must("git", "pull", "--quiet", "origin", "main")
    withdrawn = repository.run("slipway", "candidate")
    assert (withdrawn.code, "was rolled back by" in withdrawn.err) == (1, True)
    assert "rolled" not in repository.must("slipway", "candidate", "--again")

    released = json.loads((repository.path / RELEASE).read_text())
    (repository.path / RELEASE).write_text(json.dumps(released | {"value": 1.0}))
    repository.commit("Say that it was better")
    refused(repository, "metrics/release.json is changed here, but only a release may")


def test_candidate_has_new_private_marks_although_its_predictions_are_those_of_the_champion(clone: Clone) -> None:
    """Afterwards the pipeline gives `unchanged`, and decay is still measured from the earlier release."""
    repository = clone("marked")
    repository.edit("params.yaml", "image: null", IMAGE)
    marks = "for each in SCHEMA.columns.values():\n    each.metadata = {'private': 'no'}\n"
    schema = repository.path / "src/model/schema.py"
    schema.write_text(f"{schema.read_text()}\n{marks}")
    repository.commit("Mark the columns")
    before = Release.read(repository.path / RELEASE)
    repository.must("slipway", "candidate")
    release = Release.read(repository.path / RELEASE)
    bundle = json.loads((repository.path / CHAMPION / "schema.json").read_text())
    assert {column["private"] for column in bundle["columns"]} == {"no"}
    assert folder_hash(repository.path / CHAMPION) == release.champion != before.champion
    assert release.verdict == "ship"
    assert release.reason
    assert "the bundle changes the server: the mark private of the columns" in release.reason
    assert (release.loss, release.value, release.holdout) == (before.loss, before.value, before.holdout)
    assert Verdict.read(repository.path / VERDICT).verdict == "unchanged"


def test_candidate_is_not_made_without_release_image(clone: Clone) -> None:
    result = clone("fresh").run("slipway", "candidate")
    assert (result.code, "release.image is not set in params.yaml" in result.out) == (0, True)


def test_candidate_is_the_champion_after_held_data_has_landed(judged: Clone, tmp_path: Path) -> None:
    """It is released only with another server, and the results of the held model are not committed."""
    repository = judged("landed")
    repository.must("git", "checkout", "--quiet", "dvc.lock", "metrics")
    for old, new in {"image: null": IMAGE, **FEW_TREES, "when_held: wait": "when_held: land"}.items():
        repository.edit("params.yaml", old, new)
    author = ("-c", "user.name=T", "-c", "user.email=t@localhost")
    repository.must("git", *author, "commit", "--quiet", "--message", "Train fewer trees, and land data", "params.yaml")
    repository.commit("Ingest 1997H2")
    repository.must("git", "init", "--quiet", "--bare", str(tmp_path / "origin.git"))
    repository.must("git", "remote", "set-url", "origin", str(tmp_path / "origin.git"))
    repository.must("git", "push", "--quiet", "origin", "HEAD:main")
    champion = Release.read(repository.path / RELEASE).champion
    repository.must("slipway", "candidate")
    candidate = Candidate.read(repository.path / FILE)
    assert Verdict.read(repository.path / VERDICT).verdict == "hold"
    provenance = candidate.provenance
    assert (provenance.bundle, provenance.data, provenance.verdict) == (champion, None, "first")
    assert candidate.files == ()
    assert folder_hash(repository.path / BUNDLE) != champion
    repository.must("slipway", "promote", "production", *flags(1))
    repository.must("git", "checkout", "--quiet", "dvc.lock", "metrics")
    repository.must("git", "pull", "--quiet", "origin", "main")
    nothing = repository.must("slipway", "candidate")
    assert "nothing to release: the model of the last change is held (mean absolute error rises by $" in nothing
    assert "so the champion stays" in nothing

    repository.edit("params.yaml", "when_held: land", "when_held: wait")
    repository.commit("Let held data wait")
    refused(repository, "The model is held (mean absolute error rises by $")


SHIP = Verdict.model_construct(verdict="ship", reason="it is better", challenger_bundle="c" * 32)
HOLD = SHIP.model_copy(update={"verdict": "hold", "reason": "it is worse"})


@pytest.mark.parametrize(
    ("verdict", "review", "word"),
    [
        (SHIP, Review("pull request 7", SHIP.challenger_bundle, None), "ship"),
        (SHIP, Review("its pull request", None, None), "ship"),
        (HOLD, Review("pull request 7", SHIP.challenger_bundle, "grace"), "hold, overruled by grace"),
    ],
)
def test_verdict_clears_the_model(verdict: Verdict, review: Review, word: str) -> None:
    assert clear(verdict, review) == word


@pytest.mark.parametrize(
    ("verdict", "review", "words"),
    [
        (SHIP, Review("pull request 7", "f" * 32, None), f"and pull request 7 showed {'f' * 32}; nothing is released"),
        (
            HOLD,
            Review("pull request 7", "f" * 32, "grace"),
            f"and pull request 7 showed {'f' * 32}; nothing is released",
        ),
        (HOLD, Review("pull request 7", SHIP.challenger_bundle, None), "The model is held (it is worse)"),
        (HOLD, Review("its pull request", None, None), "The model is held (it is worse)"),
    ],
)
def test_verdict_does_not_clear_the_model(verdict: Verdict, review: Review, words: str) -> None:
    with pytest.raises(CheckFailed, match="nothing is released") as stopped:
        clear(verdict, review)
    assert words in str(stopped.value)


STAYS = Review("pull request 7", SHIP.challenger_bundle, None, champion_stays=True)


@pytest.mark.parametrize(
    ("verdict", "review", "when_held", "only_data", "stays"),
    [
        (HOLD, STAYS, "wait", False, True),
        (SHIP, STAYS, "wait", False, True),  # the champion that it was judged against was rolled back
        (HOLD, replace(STAYS, overruled_by="grace"), "land", True, False),
        (HOLD, replace(STAYS, bundle="f" * 32), "land", True, False),
        (HOLD, replace(STAYS, champion_stays=False), "land", True, True),  # its report showed `ship`
        (HOLD, replace(STAYS, champion_stays=False), "land", False, False),
        (HOLD, replace(STAYS, champion_stays=False), "wait", True, False),
        (SHIP, replace(STAYS, champion_stays=False), "land", True, False),
        (HOLD, Review("its pull request", None, None), "land", True, True),
    ],
)
def test_champion_stays_only_after_a_merge_without_its_model(
    monkeypatch: pytest.MonkeyPatch, verdict: Verdict, review: Review, when_held: str, only_data: bool, stays: bool
) -> None:
    monkeypatch.setattr(review_lookup, "is_delivery", lambda _: only_data)
    params = load_params(ROOT / "params.yaml")
    params = params.model_copy(update={"ingest": params.ingest.model_copy(update={"when_held": when_held})})
    assert champion_stays(verdict, review, params, Snapshot.__new__(Snapshot)) == stays


@pytest.mark.parametrize(
    ("paths", "only_data"),
    [
        (("data.dvc",), True),
        (("data.dvc", "sample/remote/files/md5/00/00"), True),
        (("data.dvc", "params.yaml"), False),
        (("data.dvc", "src/model/train.py"), False),
        (("data.dvc", "README.md"), False),
    ],
)
def test_delivery_is_a_commit_of_nothing_but_data(work: Repository, paths: tuple[str, ...], only_data: bool) -> None:
    for path in paths:
        file = work.path / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{file.read_text() if file.is_file() else ''}# another line\n")
    work.commit("Change")
    (work.path / "README.md").write_text("# Words\n")
    work.commit("Words")
    assert review_lookup.is_delivery(snapshot()) == only_data


# The report of the pull request.

REVIEWED = "5" * 32


@pytest.fixture
def github(tmp_path: Path) -> Iterator[GitHub]:
    with GitHub(State(), tmp_path).serving() as github:
        yield github


@pytest.fixture
def change(work: Repository, github: GitHub) -> str:
    """A merge of pull request 7 that changes the model, then a release and a change of text."""
    work.edit("params.yaml", "max_iter: 200", "max_iter: 20")
    work.commit("Fewer trees (#7)")
    merged = work.must("git", "rev-parse", "HEAD").strip()
    for file, content in (("champion.dvc", "outs: []\n"), ("README.md", "# Other words\n")):
        (work.path / file).write_text(content)
        work.commit(f"Change {file}")
    github.state.pulls["7"] = {"head": "a" * 40, "from": "team/houses", "state": "closed", "merged": merged}
    return merged


def comment(github: GitHub, head: str = "a" * 40, bundle: str | None = REVIEWED, **who: str) -> None:
    who = {"login": "github-actions[bot]", "kind": "Bot"} | who
    github.state.comment(CommentText("SHIP", head, bundle).complete, **who)


def found(github: GitHub) -> Review:
    return review_lookup.find(snapshot(), {"GITHUB_ACTIONS": "true", **github.variables()})


def test_report_of_the_pull_request_is_found(change: str, github: GitHub) -> None:
    comment(github)
    assert review_lookup.last_change(snapshot()) == change
    assert found(github) == Review("pull request 7", REVIEWED, None, "a" * 40)
    assert review_lookup.find(snapshot(), {}) == Review("its pull request", None, None)  # not in a workflow


@pytest.mark.usefixtures("change")
def test_report_of_held_data_is_found(github: GitHub) -> None:
    github.state.comment(
        CommentText("HOLD", "a" * 40, REVIEWED, champion_stays=True).complete, login="github-actions[bot]", kind="Bot"
    )
    assert found(github) == Review("pull request 7", REVIEWED, None, "a" * 40, champion_stays=True)


@pytest.mark.usefixtures("change")
@pytest.mark.parametrize(
    ("written", "is_overruled", "by"),
    [
        ("2026-11-24T05:30:00Z", False, "grace"),  # the label was added after the report
        ("2026-11-24T05:32:00Z", True, "grace"),  # the checks ran again and read the label
        ("2026-11-24T05:32:00Z", False, None),  # the label was added to an earlier commit
    ],
)
def test_label_of_a_maintainer_overrules_only_the_commit_that_it_was_added_to(
    github: GitHub, written: str, is_overruled: bool, by: str | None
) -> None:
    github.state.comment(
        CommentText("HOLD", "a" * 40, REVIEWED, is_overruled=is_overruled).complete,
        login="github-actions[bot]",
        kind="Bot",
    )["at"] = written
    github.state.pulls["7"]["labels"] = ["ship-anyway"]
    event = {"event": "labeled", "label": {"name": "ship-anyway"}, "actor": {"login": "grace"}}
    github.state.documents["/issues/7/events"] = [event | {"created_at": "2026-11-24T05:31:00Z", "id": 1}]
    assert found(github).overruled_by == by


@pytest.mark.usefixtures("change")
@pytest.mark.parametrize(
    "told",
    [
        {},
        {"head": "b" * 40},
        {"bundle": None},
        {"login": "somebody", "kind": "User"},
    ],
    ids=["nothing", "on another commit", "no model", "of a stranger"],
)
def test_report_by_another_user_or_on_another_commit_or_without_a_model_is_ignored(
    github: GitHub, told: dict[str, str]
) -> None:
    if told:
        comment(github, **told)
    with pytest.raises(CheckFailed, match="Pull request 7 has no report on its last commit"):
        found(github)


@pytest.mark.usefixtures("change")
@pytest.mark.parametrize(("editor", "counts"), [("github-actions[bot]", True), ("mallory", False)])
def test_report_that_a_person_edited_does_not_count(github: GitHub, editor: str, counts: bool) -> None:
    comment(github)
    github.state.comments[-1]["editor"] = editor
    if counts:
        assert found(github).bundle == REVIEWED
    else:
        with pytest.raises(CheckFailed, match="#issuecomment-1001 was edited by hand, so it does not count"):
            found(github)


def test_change_without_a_pull_request_is_refused(change: str, github: GitHub) -> None:
    comment(github)
    github.state.pulls["7"]["merged"] = None
    with pytest.raises(CheckFailed, match=f"{change[:12]} came to main by no pull request"):
        found(github)


@pytest.mark.usefixtures("change")
def test_candidate_is_refused_if_github_does_not_answer(github: GitHub) -> None:
    with pytest.raises(CheckFailed, match="The report cannot be read from GitHub"):
        review_lookup.find(
            snapshot(), {"GITHUB_ACTIONS": "true", **github.variables(), "GITHUB_API_URL": "https://localhost:1"}
        )
