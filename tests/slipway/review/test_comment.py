"""Posting: to the right pull request or not at all, just once, and by some way or loudly not.

The tests of the comment itself run the real CML (`cml`, or what CML names). Only where it is not installed does a
stand-in take its place, and `test_cml.test_cml_is_here` fails.
"""

import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from demo.fakes.github_server import Failure, GitHub
from slipway.errors import CheckFailed, InputError
from slipway.integrations import cml, github_comments
from slipway.integrations import github as api
from slipway.integrations.github_comments import MARKER
from slipway.review import comment
from slipway.review.report import Point, Report
from tests.slipway.review.conftest import HEAD, PULL

BY_CML = ".*octokit.*"
BY_US = "PyGithub.*"
STAND_IN = """\
import json, os, re, ssl, sys, urllib.request
options = dict(each[2:].split("=", 1) for each in sys.argv[3:-1])
server, owner, name = options["repo"].rsplit("/", 2)
top = f"{server}/api/v3/repos/{owner}/{name}/issues"
trusted = ssl.create_default_context(cafile=os.environ["NODE_EXTRA_CA_CERTS"])
headers = {"Authorization": "token " + os.environ["REPO_TOKEN"], "User-Agent": "octokit (stand-in)"}
def ask(method, address, body=None):
    data = json.dumps({"body": body}).encode() if body else None
    request = urllib.request.Request(address, data, headers, method=method)
    with urllib.request.urlopen(request, context=trusted) as answer:
        return json.load(answer)
title = re.escape(options["watermark-title"])
mark = rf'!\\[\\]\\(https://cml\\.dev/watermark\\.png#[0-9a-f]+ "CML watermark {title}"\\)'
text = open(sys.argv[-1]).read() + "\\n\\n"
text += f'![](https://cml.dev/watermark.png#{os.environ["GITHUB_SHA"]} "CML watermark {options["watermark-title"]}")'
thread = f"{top}/{options['target'].removeprefix('pr/')}/comments"
found = [each for each in ask("GET", thread) if re.search(mark, each["body"])]
if found:
    ask("PATCH", f"{top}/comments/{found[-1]['id']}", text)
else:
    ask("POST", thread, text)
"""


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """What hangs in these tests hangs for good, and this server does not show things late."""
    monkeypatch.setattr(cml, "SECONDS", 20)
    monkeypatch.setattr(api, "SECONDS", 1)
    monkeypatch.setattr(github_comments, "PATIENCE", (0.0, 0.1))


@pytest.fixture
def environ(github: GitHub, tmp_path: Path) -> dict[str, str]:
    """A workflow `comment.yml`, started by run 42 of the pull request."""
    remote = tmp_path / "remote.git"
    subprocess.run(["git", "init", "--quiet", "--bare", str(remote)], check=True)
    command = os.environ.get("CML") or "cml"
    if shutil.which(shlex.split(command)[0]) is None:
        (tmp_path / "cml.py").write_text(STAND_IN)
        command = shlex.join([sys.executable, str(tmp_path / "cml.py")])
    variables = {"PATH": os.environ["PATH"], "CML": command, "SLIPWAY_REPORTS_REMOTE": remote.as_uri()}
    variables |= github.variables() | {"GITHUB_EVENT_PATH": str(tmp_path / "event.json")}
    started_by(variables)
    return variables


def started_by(environ: dict[str, str], head: str = HEAD, source: str = "team/houses") -> None:
    """Write the event."""
    run = {"id": 42, "head_sha": head, "head_repository": {"full_name": source}, "event": "pull_request"}
    Path(environ["GITHUB_EVENT_PATH"]).write_text(json.dumps({"action": "completed", "workflow_run": run}))


@pytest.fixture
def folder(tmp_path: Path, report: Report) -> Path:
    """The artifact."""
    path = tmp_path / "artifact"
    report.write(path / "report.json")
    return path


def rewrite(folder: Path, report: Report, **changes: object) -> None:
    report.model_copy(update=changes).write(folder / "report.json")


def nothing_is_written(github: GitHub) -> bool:
    return {each["method"] for each in github.state.requests} <= {"GET"}


def own(github: GitHub, body: str = f"{MARKER} {'e' * 40} of an earlier commit -->") -> dict[str, object]:
    """A comment of ours as an earlier run left it."""
    return github.state.comment(f"{body}\n\n{cml.watermark('e' * 40)}", *github.state.writer)


class TestOnce:
    def test_created_and_then_updated_by_cml(
        self, github: GitHub, folder: Path, environ: dict[str, str], report: Report
    ) -> None:
        first = comment.post(folder, environ)
        (body,) = github.state.bodies()
        assert body.startswith(f"{MARKER} {HEAD} ")
        assert body.endswith(cml.watermark(HEAD))
        assert first.warnings == ()
        assert first.address == f"{github.url}/team/houses/pull/7#issuecomment-1001"

        later = "b2" * 20
        github.state.pulls[str(PULL)]["head"] = later
        started_by(environ, later)
        rewrite(folder, report, lineage=report.lineage.model_copy(update={"head": later}))
        second = comment.post(folder, environ)
        (body,) = github.state.bodies()
        assert body.startswith(f"{MARKER} {later} ")
        assert (second.address, second.warnings) == (first.address, ())
        writes = [
            (each["method"], "octokit" in each["client"]) for each in github.state.requests if each["method"] != "GET"
        ]
        assert writes == [("POST", True), ("PATCH", True)]

    def test_posted_again_it_is_the_same(self, github: GitHub, folder: Path, environ: dict[str, str]) -> None:
        assert comment.post(folder, environ) == comment.post(folder, environ)
        assert len(github.state.bodies()) == 1

    def test_the_pictures_are_shown_from_the_repository(
        self, github: GitHub, folder: Path, environ: dict[str, str]
    ) -> None:
        comment.post(folder, environ)
        assert f"{github.url}/team/houses/raw/reports/7/{HEAD[:12]}/" in github.state.bodies()[0]

    def test_it_is_posted_without_pictures_where_none_can_be_drawn(
        self, github: GitHub, folder: Path, environ: dict[str, str], report: Report
    ) -> None:
        assert report.judged
        far = (Point(actual=-1.7e308, champion=1.7e308, challenger=1.7e308),) * 2
        rewrite(folder, report, judged=report.judged.model_copy(update={"points": far}))
        posted = comment.post(folder, environ)
        assert [words for words in posted.warnings if "cannot be drawn" in words]
        assert "UNCHANGED" in github.state.bodies()[0]

    def test_it_is_posted_without_pictures_where_none_can_be_pushed(
        self, github: GitHub, folder: Path, environ: dict[str, str], tmp_path: Path
    ) -> None:
        posted = comment.post(folder, environ | {"SLIPWAY_REPORTS_REMOTE": str(tmp_path / "nowhere")})
        assert [words for words in posted.warnings if words.startswith("The comment has no pictures")]
        assert "/raw/reports/" not in github.state.bodies()[0]

    @pytest.mark.parametrize("fails", [False, True])
    def test_among_many_comments_ours_is_found(
        self, github: GitHub, folder: Path, environ: dict[str, str], fails: bool
    ) -> None:
        """CML looks at the first thirty only."""
        for _ in range(130):
            github.state.comment("I think so too")
        own(github)
        if fails:
            github.state.failures.append(Failure(500, "PATCH", times=1))
            with pytest.raises(CheckFailed):
                comment.post(folder, environ)
        posted = comment.post(folder, environ)
        assert len(github.state.bodies()) == 131
        assert github.state.bodies()[-1].startswith(f"{MARKER} {HEAD}")
        assert "beyond the first page" in posted.warnings[0]

    def test_the_first_is_created_among_many_comments(
        self, github: GitHub, folder: Path, environ: dict[str, str]
    ) -> None:
        for _ in range(40):
            github.state.comment("I think so too")
        for _ in range(2):
            comment.post(folder, environ)
        assert sum(body.startswith(MARKER) for body in github.state.bodies()) == 1

    def test_of_several_of_ours_one_remains(self, github: GitHub, folder: Path, environ: dict[str, str]) -> None:
        for _ in range(3):
            own(github)
        posted = comment.post(folder, environ)
        (body,) = github.state.bodies()
        assert body.startswith(f"{MARKER} {HEAD}")
        assert posted.warnings == ()

    def test_one_that_cannot_be_deleted_is_told(self, github: GitHub, folder: Path, environ: dict[str, str]) -> None:
        for _ in range(2):
            own(github)
        github.state.failures.append(Failure(403, "DELETE"))
        posted = comment.post(folder, environ)
        assert "An earlier comment cannot be deleted (403" in posted.warnings[0]

    def test_another_report_of_cml_is_left_alone(self, github: GitHub, folder: Path, environ: dict[str, str]) -> None:
        other = f"Another\n\n{cml.watermark(HEAD).replace('watermark slipway', 'watermark')}"
        github.state.comment(other, *github.state.writer)
        comment.post(folder, environ)
        assert github.state.bodies()[0] == other
        assert len(github.state.bodies()) == 2


class TestStrangers:
    @pytest.mark.parametrize(
        "body",
        [
            f"{MARKER} {HEAD} -->\nSHIP",
            f"SHIP\n\n{cml.watermark(HEAD)}",
            f"{MARKER} {HEAD} -->\nSHIP\n\n{cml.watermark(HEAD)}",
        ],
        ids=["marker", "watermark", "both"],
    )
    @pytest.mark.parametrize("first", [True, False])
    def test_a_comment_of_a_stranger_is_never_taken_for_ours(
        self, github: GitHub, folder: Path, environ: dict[str, str], body: str, first: bool
    ) -> None:
        if not first:
            own(github)
        github.state.comment(body)
        for _ in range(2):
            comment.post(folder, environ)
        assert github.state.bodies().count(body) == 1
        (ours,) = [each for each in github.state.comments if each["login"] != "somebody"]
        assert ours["body"].startswith(f"{MARKER} {HEAD}")

    def test_somebodys_token_writes_in_their_name(self, github: GitHub, folder: Path, environ: dict[str, str]) -> None:
        github.state.writer, github.state.user_is_told = ("robot-of-the-team", "User"), True
        for _ in range(2):
            comment.post(folder, environ)
        assert len(github.state.bodies()) == 1

    def test_a_comment_of_a_stranger_updated_in_a_race_is_not_ours(
        self, github: GitHub, folder: Path, environ: dict[str, str], tmp_path: Path
    ) -> None:
        """Somebody writes the watermark just before CML looks, so it updates theirs: ours is written all the same."""
        state = github.state
        there = state.comment("I think so too")
        program = tmp_path / "late.py"
        program.write_text(
            "import json, os, ssl, sys, urllib.request\n"
            "text = open(sys.argv[-1]).read() + '\\n\\n' + " + repr(cml.watermark(HEAD)) + "\n"
            f"request = urllib.request.Request({github.api!r} + '/repos/team/houses/issues/comments/{there['id']}',"
            " json.dumps({'body': text}).encode(), {'Authorization': 'token ' + os.environ['REPO_TOKEN']},"
            " method='PATCH')\n"
            "trusted = ssl.create_default_context(cafile=os.environ['NODE_EXTRA_CA_CERTS'])\n"
            "urllib.request.urlopen(request, context=trusted)\n"
        )
        comment.post(folder, environ | {"CML": shlex.join([sys.executable, str(program)])})
        assert [each["login"] for each in state.comments if HEAD in each["body"]][-1] == state.writer[0]


class TestTheRightPullRequest:
    def refused(self, github: GitHub, folder: Path, environ: dict[str, str]) -> str:
        with pytest.raises(CheckFailed) as refused:
            comment.post(folder, environ)
        assert nothing_is_written(github)
        assert github.state.comments == []
        return str(refused.value)

    def test_one_of_somebody_else(self, github: GitHub, folder: Path, environ: dict[str, str], report: Report) -> None:
        github.state.pulls["8"] = {"head": HEAD, "from": "somebody/houses"}
        rewrite(folder, report, pull_request=8)
        assert "pull request 8, which its report names, is not" in self.refused(github, folder, environ)

    def test_one_whose_head_has_moved_on(self, github: GitHub, folder: Path, environ: dict[str, str]) -> None:
        github.state.pulls["7"]["head"] = "b2" * 20
        assert "at b2b2b2b2b2b2 and run 42 of a1a1a1a1a1a1" in self.refused(github, folder, environ)

    def test_one_of_another_commit_of_the_same_fork(
        self, github: GitHub, folder: Path, environ: dict[str, str], report: Report
    ) -> None:
        github.state.pulls["8"] = {"head": "b2" * 20, "from": "team/houses"}
        lineage = report.lineage.model_copy(update={"head": "b2" * 20})
        rewrite(folder, report, pull_request=8, lineage=lineage)
        assert "nothing is posted" in self.refused(github, folder, environ)

    def test_a_report_of_another_commit(
        self, github: GitHub, folder: Path, environ: dict[str, str], report: Report
    ) -> None:
        rewrite(folder, report, lineage=report.lineage.model_copy(update={"head": "b2" * 20}))
        assert "The report is of b2b2b2b2b2b2" in self.refused(github, folder, environ)

    def test_one_that_is_closed(self, github: GitHub, folder: Path, environ: dict[str, str]) -> None:
        github.state.pulls["7"]["state"] = "closed"
        assert "Pull request 7 is closed" in self.refused(github, folder, environ)

    def test_one_whose_fork_is_gone(self, github: GitHub, folder: Path, environ: dict[str, str]) -> None:
        github.state.pulls["7"]["from"] = None
        assert "nothing is posted" in self.refused(github, folder, environ)

    @pytest.mark.parametrize("number", [8, 10**30])
    def test_one_that_is_not_there(
        self, github: GitHub, folder: Path, environ: dict[str, str], report: Report, number: int
    ) -> None:
        rewrite(folder, report, pull_request=number)
        assert f"no pull request {number}" in self.refused(github, folder, environ)

    def test_a_fork_is_named(self, github: GitHub, folder: Path, environ: dict[str, str]) -> None:
        github.state.pulls["7"]["from"] = "somebody/houses"
        started_by(environ, source="somebody/houses")
        comment.post(folder, environ)
        assert "Code of the fork" in github.state.bodies()[0]

    def test_a_run_of_the_merge_queue_has_none(
        self, github: GitHub, folder: Path, environ: dict[str, str], report: Report
    ) -> None:
        rewrite(folder, report, pull_request=None)
        assert "nothing to post" in comment.post(folder, environ).words
        assert github.state.requests == []


class TestHostile:
    """What a stranger's run may leave in the artifact."""

    def refused(self, github: GitHub, folder: Path, environ: dict[str, str]) -> None:
        with pytest.raises(InputError) as refused:
            comment.post(folder, environ)
        assert "\n" not in str(refused.value)
        assert github.state.requests == []

    @pytest.mark.parametrize("absent", ["report.json", "."])
    def test_no_report_is_no_fault(self, github: GitHub, folder: Path, environ: dict[str, str], absent: str) -> None:
        shutil.rmtree(folder)
        if absent != ".":
            folder.mkdir()
        assert "judged nothing" in comment.post(folder, environ).words
        assert github.state.requests == []

    def test_ten_megabytes(self, github: GitHub, folder: Path, environ: dict[str, str], report: Report) -> None:
        text = report.model_dump_json()
        (folder / "report.json").write_text(text + " " * (10_000_000 - len(text)))
        self.refused(github, folder, environ)

    @pytest.mark.parametrize("target", ["other.json", "nowhere"])
    def test_a_link(self, github: GitHub, folder: Path, environ: dict[str, str], target: str) -> None:
        (folder / "report.json").rename(folder / "other.json")
        (folder / "report.json").symlink_to(folder / target)
        self.refused(github, folder, environ)

    @pytest.mark.parametrize(
        "content", [b"", b"\xff\xfe", b"SHIP", b"[]", b"null", b"[" * 100_000, b'{"pull_request": 7}']
    )
    def test_something_else(self, github: GitHub, folder: Path, environ: dict[str, str], content: bytes) -> None:
        (folder / "report.json").write_bytes(content)
        self.refused(github, folder, environ)

    @pytest.mark.parametrize("number", ["7/../8", "seven", 7.5, -7, 0, [7]])
    def test_a_number_that_is_none(
        self, github: GitHub, folder: Path, environ: dict[str, str], report: Report, number: object
    ) -> None:
        document = json.loads(report.model_dump_json()) | {"pull_request": number}
        (folder / "report.json").write_text(json.dumps(document))
        self.refused(github, folder, environ)

    @pytest.mark.parametrize(
        "content", ["", "{}", '{"workflow_run": {"id": 1, "head_sha": "x", "head_repository": null}}']
    )
    def test_an_event_of_another_kind(
        self, github: GitHub, folder: Path, environ: dict[str, str], content: str
    ) -> None:
        Path(environ["GITHUB_EVENT_PATH"]).write_text(content)
        self.refused(github, folder, environ)

    @pytest.mark.parametrize("variable", ["GITHUB_EVENT_PATH", "GITHUB_TOKEN", "GITHUB_REPOSITORY"])
    def test_a_variable_that_lacks(self, github: GitHub, folder: Path, environ: dict[str, str], variable: str) -> None:
        del environ[variable]
        with pytest.raises(InputError, match=variable):
            comment.post(folder, environ)
        assert github.state.requests == []


class TestFailing:
    """CML or the server does not do its part."""

    @pytest.mark.parametrize("updating", [False, True])
    @pytest.mark.parametrize("answer", [500, 403, 422, "hang"])
    def test_where_cml_fails_the_api_posts(
        self,
        github: GitHub,
        folder: Path,
        environ: dict[str, str],
        answer: int | str,
        updating: bool,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        if updating:
            own(github)
        github.state.failures.append(Failure(answer, "POST|PATCH", client=BY_CML))
        with monkeypatch.context() as hurried:
            if answer == "hang":
                hurried.setattr(cml, "SECONDS", 3)
            posted = comment.post(folder, environ)
        (body,) = github.state.bodies()
        assert body.startswith(f"{MARKER} {HEAD}")
        assert "CML did not post the comment" in posted.warnings[0]
        assert github.state.token not in repr(posted)

        github.state.failures.clear()
        assert comment.post(folder, environ).warnings == ()  # CML has found it again
        assert len(github.state.bodies()) == 1

    @pytest.mark.parametrize("command", ["no-such-program", "true", "false"], ids=["missing", "idle", "failing"])
    def test_where_cml_does_nothing_the_api_posts(
        self, github: GitHub, folder: Path, environ: dict[str, str], command: str
    ) -> None:
        posted = comment.post(folder, environ | {"CML": command})
        (body,) = github.state.bodies()
        assert body.startswith(f"{MARKER} {HEAD}")
        assert "CML did not post the comment" in posted.warnings[0]

    def test_what_cml_wrote_although_it_was_told_otherwise_is_not_written_twice(
        self, github: GitHub, folder: Path, environ: dict[str, str]
    ) -> None:
        github.state.failures.append(Failure(500, "POST", client=BY_CML, applied=True))
        comment.post(folder, environ)
        assert len(github.state.bodies()) == 1

    @pytest.mark.parametrize(
        ("method", "answer"),
        [
            ("POST|PATCH", 500),
            ("POST|PATCH", 403),
            ("POST|PATCH", 422),
            ("POST|PATCH", "hang"),
            ("GET", 500),
            (".*", "hang"),
        ],
    )
    def test_where_nothing_helps_it_is_said_loudly(
        self,
        github: GitHub,
        folder: Path,
        environ: dict[str, str],
        answer: int | str,
        method: str,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        if answer == "hang":
            monkeypatch.setattr(cml, "SECONDS", 3)
        github.state.failures.append(Failure(answer, method))
        with pytest.raises(CheckFailed) as refused:
            comment.post(folder, environ)
        words = str(refused.value)
        assert words.endswith(
            f"the report is in the artifact `report` of run 42: {github.url}/team/houses/actions/runs/42"
        )
        assert "\n" not in words
        assert github.state.token not in words
        assert github.state.comments == []
        assert (folder / "report.json").is_file()

    def test_a_server_that_is_not_there(self, folder: Path, environ: dict[str, str]) -> None:
        with pytest.raises(CheckFailed, match="artifact `report` of run 42"):
            comment.post(folder, environ | {"GITHUB_API_URL": "https://localhost:1"})

    def test_a_server_that_nobody_vouches_for(self, github: GitHub, folder: Path, environ: dict[str, str]) -> None:
        del environ["REQUESTS_CA_BUNDLE"]
        with pytest.raises(CheckFailed, match="SSLError"):
            comment.post(folder, environ)
        assert github.state.requests == []
