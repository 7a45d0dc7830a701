"""The comment: on the right pull request or on none, exactly once, and with an error if it cannot be posted.

The tests run the real CML (`cml`, or the command in CML). If it is not installed, a fake replaces it.
"""

import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from unittest.mock import Mock

import pytest

from demo.fakes.github_server import Failure, GitHub
from slipway.errors import CheckFailed, InputError
from slipway.integrations import cml, github_comments
from slipway.integrations import github as api
from slipway.integrations.github_comments import MARKER
from slipway.review import comment, looks, svg_charts
from slipway.review.report import Point, Report
from tests.slipway.review.conftest import HEAD, PULL

BY_CML = ".*octokit.*"
FAKE_CML = """\
import json, os, re, ssl, sys, urllib.request
options = dict(each[2:].split("=", 1) for each in sys.argv[3:-1])
server, owner, name = options["repo"].rsplit("/", 2)
top = f"{server}/api/v3/repos/{owner}/{name}/issues"
trusted = ssl.create_default_context(cafile=os.environ["NODE_EXTRA_CA_CERTS"])
headers = {"Authorization": "token " + os.environ["REPO_TOKEN"], "User-Agent": "octokit (fake)"}
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
def short_timeouts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait less: here a server that hangs hangs for good, and new comments appear at once."""
    monkeypatch.setattr(cml, "CML_TIMEOUT_SECONDS", 20)
    monkeypatch.setattr(api, "GITHUB_TIMEOUT_SECONDS", 1)
    monkeypatch.setattr(github_comments, "READ_DELAYS_SECONDS", (0.0, 0.1))


@pytest.fixture
def environ(github: GitHub, tmp_path: Path) -> dict[str, str]:
    """Return the environment of the workflow comment.yml, started by run 42 of the pull request."""
    remote = tmp_path / "remote.git"
    subprocess.run(["git", "init", "--quiet", "--bare", str(remote)], check=True)
    command = os.environ.get("CML") or "cml"
    if shutil.which(shlex.split(command)[0]) is None:
        (tmp_path / "cml.py").write_text(FAKE_CML)
        command = shlex.join([sys.executable, str(tmp_path / "cml.py")])
    variables = {"PATH": os.environ["PATH"], "CML": command, "SLIPWAY_REPORTS_REMOTE": remote.as_uri()}
    variables |= github.variables() | {"GITHUB_EVENT_PATH": str(tmp_path / "event.json")}
    started_by(variables)
    return variables


def started_by(environ: dict[str, str], head: str = HEAD, source: str = "team/houses") -> None:
    """Write the event of a completed run."""
    run = {"id": 42, "head_sha": head, "head_repository": {"full_name": source}, "event": "pull_request"}
    Path(environ["GITHUB_EVENT_PATH"]).write_text(json.dumps({"action": "completed", "workflow_run": run}))


@pytest.fixture
def folder(tmp_path: Path, report: Report) -> Path:
    """Return the directory of the artifact."""
    path = tmp_path / "artifact"
    report.write(path / "report.json")
    return path


def rewrite(folder: Path, report: Report, **changes: object) -> None:
    report.model_copy(update=changes).write(folder / "report.json")


def nothing_is_written(github: GitHub) -> bool:
    return {each["method"] for each in github.state.requests} <= {"GET"}


def own(github: GitHub, body: str = f"{MARKER} {'e' * 40} of an earlier commit -->") -> dict[str, object]:
    """Add a comment of Slipway as an earlier run left it."""
    return github.state.comment(f"{body}\n\n{cml.watermark('e' * 40)}", *github.state.writer)


class TestExactlyOnce:
    def test_cml_creates_and_then_updates_the_comment(
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
        rewrite(folder, report, revision=report.revision.model_copy(update={"head": later}))
        second = comment.post(folder, environ)
        (body,) = github.state.bodies()
        assert body.startswith(f"{MARKER} {later} ")
        assert (second.address, second.warnings) == (first.address, ())
        writes = [
            (each["method"], "octokit" in each["client"]) for each in github.state.requests if each["method"] != "GET"
        ]
        assert writes == [("POST", True), ("PATCH", True)]

    def test_posting_again_changes_nothing(self, github: GitHub, folder: Path, environ: dict[str, str]) -> None:
        assert comment.post(folder, environ) == comment.post(folder, environ)
        assert len(github.state.bodies()) == 1

    def test_charts_are_shown_from_the_repository(self, github: GitHub, folder: Path, environ: dict[str, str]) -> None:
        charts = comment.push_charts(folder, environ)
        assert charts.address == f"{github.url}/team/houses/raw/reports/7/{HEAD[:12]}"
        comment.post(folder, environ, charts.address)
        assert f"{charts.address}/" in github.state.bodies()[0]

    @pytest.mark.usefixtures("github")
    @pytest.mark.parametrize("charts", ["drawn", "none", "not drawable"])
    def test_the_branch_of_the_charts_names_each_judged_model(
        self, folder: Path, environ: dict[str, str], report: Report, monkeypatch: pytest.MonkeyPatch, charts: str
    ) -> None:
        """A model also counts if its report has no charts, or has numbers that cannot be drawn."""
        bundle = "d" * 32
        assert report.result
        verdict = report.result.verdict.model_copy(update={"verdict": "hold", "challenger_bundle": bundle})
        rewrite(folder, report, result=report.result.model_copy(update={"verdict": verdict}))
        if charts != "drawn":
            error = Mock(side_effect=ValueError if charts == "not drawable" else None, return_value={})
            monkeypatch.setattr(svg_charts, "draw_charts", error)
        pushed = comment.push_charts(folder, environ)
        remote = environ["SLIPWAY_REPORTS_REMOTE"].removeprefix("file://")
        log = subprocess.run(["git", "-C", remote, "log", "--format=%B", "reports"], capture_output=True, text=True)
        assert [look.bundle for look in looks.looks_in([log.stdout])] == [bundle]
        assert (pushed.address is not None) == (charts == "drawn")

    def test_the_comment_is_posted_without_charts_that_cannot_be_drawn(
        self, github: GitHub, folder: Path, environ: dict[str, str], report: Report
    ) -> None:
        assert report.result
        far = (Point(actual=-1.7e308, champion=1.7e308, challenger=1.7e308),) * 2
        rewrite(folder, report, result=report.result.model_copy(update={"points": far}))
        charts = comment.push_charts(folder, environ)
        assert ["cannot be drawn" in warning for warning in charts.warnings] == [True]
        comment.post(folder, environ, charts.address)
        assert "UNCHANGED" in github.state.bodies()[0]

    def test_the_comment_is_posted_without_charts_that_cannot_be_pushed(
        self, github: GitHub, folder: Path, environ: dict[str, str], tmp_path: Path
    ) -> None:
        charts = comment.push_charts(folder, environ | {"SLIPWAY_REPORTS_REMOTE": str(tmp_path / "nowhere")})
        assert charts.warnings[0].startswith("The comment has no charts")
        comment.post(folder, environ, charts.address)
        assert "/raw/reports/" not in github.state.bodies()[0]

    @pytest.mark.parametrize("fails", [False, True])
    def test_the_comment_is_found_among_many(
        self, github: GitHub, folder: Path, environ: dict[str, str], fails: bool
    ) -> None:
        """CML searches only the first 30."""
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

    def test_the_first_comment_is_created_among_many(
        self, github: GitHub, folder: Path, environ: dict[str, str]
    ) -> None:
        for _ in range(40):
            github.state.comment("I think so too")
        for _ in range(2):
            comment.post(folder, environ)
        assert sum(body.startswith(MARKER) for body in github.state.bodies()) == 1

    def test_duplicates_are_deleted(self, github: GitHub, folder: Path, environ: dict[str, str]) -> None:
        for _ in range(3):
            own(github)
        posted = comment.post(folder, environ)
        (body,) = github.state.bodies()
        assert body.startswith(f"{MARKER} {HEAD}")
        assert posted.warnings == ()

    def test_a_duplicate_that_cannot_be_deleted_is_a_warning(
        self, github: GitHub, folder: Path, environ: dict[str, str]
    ) -> None:
        for _ in range(2):
            own(github)
        github.state.failures.append(Failure(403, "DELETE"))
        posted = comment.post(folder, environ)
        assert "An earlier comment cannot be deleted (403" in posted.warnings[0]

    def test_another_report_of_cml_is_kept(self, github: GitHub, folder: Path, environ: dict[str, str]) -> None:
        other = f"Another\n\n{cml.watermark(HEAD).replace('watermark slipway', 'watermark')}"
        github.state.comment(other, *github.state.writer)
        comment.post(folder, environ)
        assert github.state.bodies()[0] == other
        assert len(github.state.bodies()) == 2


class TestCommentsOfOthers:
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
    def test_a_forged_comment_is_never_updated(
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

    def test_a_personal_token_updates_its_own_comment(
        self, github: GitHub, folder: Path, environ: dict[str, str]
    ) -> None:
        github.state.writer, github.state.user_is_told = ("robot-of-the-team", "User"), True
        for _ in range(2):
            comment.post(folder, environ)
        assert len(github.state.bodies()) == 1

    def test_a_forged_comment_that_cml_updated_does_not_count(
        self, github: GitHub, folder: Path, environ: dict[str, str], tmp_path: Path
    ) -> None:
        """CML updates the comment of a user who adds the watermark just before. The report is posted anyway."""
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


class TestRightPullRequest:
    def refused(self, github: GitHub, folder: Path, environ: dict[str, str]) -> str:
        with pytest.raises(CheckFailed) as refused:
            comment.post(folder, environ)
        assert nothing_is_written(github)
        assert github.state.comments == []
        return str(refused.value)

    def test_the_pull_request_of_another_repository_is_refused(
        self, github: GitHub, folder: Path, environ: dict[str, str], report: Report
    ) -> None:
        github.state.pulls["8"] = {"head": HEAD, "from": "somebody/houses"}
        rewrite(folder, report, pull_request=8)
        assert "The report names pull request 8, but run 42 belongs to" in self.refused(github, folder, environ)

    def test_a_pull_request_with_newer_commits_is_refused(
        self, github: GitHub, folder: Path, environ: dict[str, str]
    ) -> None:
        github.state.pulls["7"]["head"] = "b2" * 20
        assert "at b2b2b2b2b2b2 but run 42 is for a1a1a1a1a1a1" in self.refused(github, folder, environ)

    def test_another_pull_request_of_the_same_repository_is_refused(
        self, github: GitHub, folder: Path, environ: dict[str, str], report: Report
    ) -> None:
        github.state.pulls["8"] = {"head": "b2" * 20, "from": "team/houses"}
        revision = report.revision.model_copy(update={"head": "b2" * 20})
        rewrite(folder, report, pull_request=8, revision=revision)
        assert "nothing is posted" in self.refused(github, folder, environ)

    def test_a_report_on_another_commit_is_refused(
        self, github: GitHub, folder: Path, environ: dict[str, str], report: Report
    ) -> None:
        rewrite(folder, report, revision=report.revision.model_copy(update={"head": "b2" * 20}))
        assert "The report is for b2b2b2b2b2b2" in self.refused(github, folder, environ)

    def test_a_closed_pull_request_is_refused(self, github: GitHub, folder: Path, environ: dict[str, str]) -> None:
        github.state.pulls["7"]["state"] = "closed"
        assert "Pull request 7 is closed" in self.refused(github, folder, environ)

    def test_a_pull_request_of_a_deleted_fork_is_refused(
        self, github: GitHub, folder: Path, environ: dict[str, str]
    ) -> None:
        github.state.pulls["7"]["from"] = None
        assert "nothing is posted" in self.refused(github, folder, environ)

    @pytest.mark.parametrize("number", [8, 10**30])
    def test_a_missing_pull_request_is_refused(
        self, github: GitHub, folder: Path, environ: dict[str, str], report: Report, number: int
    ) -> None:
        rewrite(folder, report, pull_request=number)
        assert f"no pull request {number}" in self.refused(github, folder, environ)

    def test_the_comment_warns_of_a_fork(self, github: GitHub, folder: Path, environ: dict[str, str]) -> None:
        github.state.pulls["7"]["from"] = "somebody/houses"
        started_by(environ, source="somebody/houses")
        comment.post(folder, environ)
        assert "Code of the fork" in github.state.bodies()[0]

    def test_a_run_of_the_merge_queue_posts_nothing(
        self, github: GitHub, folder: Path, environ: dict[str, str], report: Report
    ) -> None:
        rewrite(folder, report, pull_request=None)
        assert "nothing to post" in comment.post(folder, environ).sentence
        assert github.state.requests == []


class TestHostileArtifact:
    """The artifact is untrusted."""

    def refused(self, github: GitHub, folder: Path, environ: dict[str, str]) -> None:
        with pytest.raises(InputError) as refused:
            comment.post(folder, environ)
        assert "\n" not in str(refused.value)
        assert github.state.requests == []

    @pytest.mark.parametrize("absent", ["report.json", "."])
    def test_a_run_without_a_report_posts_nothing(
        self, github: GitHub, folder: Path, environ: dict[str, str], absent: str
    ) -> None:
        shutil.rmtree(folder)
        if absent != ".":
            folder.mkdir()
        assert "has no report" in comment.post(folder, environ).sentence
        assert github.state.requests == []

    def test_a_large_report_is_refused(
        self, github: GitHub, folder: Path, environ: dict[str, str], report: Report
    ) -> None:
        text = report.model_dump_json()
        (folder / "report.json").write_text(text + " " * (10_000_000 - len(text)))
        self.refused(github, folder, environ)

    @pytest.mark.parametrize("target", ["other.json", "nowhere"])
    def test_a_symbolic_link_is_refused(
        self, github: GitHub, folder: Path, environ: dict[str, str], target: str
    ) -> None:
        (folder / "report.json").rename(folder / "other.json")
        (folder / "report.json").symlink_to(folder / target)
        self.refused(github, folder, environ)

    @pytest.mark.parametrize(
        "content", [b"", b"\xff\xfe", b"SHIP", b"[]", b"null", b"[" * 100_000, b'{"pull_request": 7}']
    )
    def test_content_that_is_not_a_report_is_refused(
        self, github: GitHub, folder: Path, environ: dict[str, str], content: bytes
    ) -> None:
        (folder / "report.json").write_bytes(content)
        self.refused(github, folder, environ)

    @pytest.mark.parametrize("number", ["7/../8", "seven", 7.5, -7, 0, [7]])
    def test_an_invalid_number_is_refused(
        self, github: GitHub, folder: Path, environ: dict[str, str], report: Report, number: object
    ) -> None:
        document = json.loads(report.model_dump_json()) | {"pull_request": number}
        (folder / "report.json").write_text(json.dumps(document))
        self.refused(github, folder, environ)

    @pytest.mark.parametrize(
        "content", ["", "{}", '{"workflow_run": {"id": 1, "head_sha": "x", "head_repository": null}}']
    )
    def test_another_event_is_refused(
        self, github: GitHub, folder: Path, environ: dict[str, str], content: str
    ) -> None:
        Path(environ["GITHUB_EVENT_PATH"]).write_text(content)
        self.refused(github, folder, environ)

    @pytest.mark.parametrize("variable", ["GITHUB_EVENT_PATH", "GITHUB_TOKEN", "GITHUB_REPOSITORY"])
    def test_a_missing_variable_is_an_error(
        self, github: GitHub, folder: Path, environ: dict[str, str], variable: str
    ) -> None:
        del environ[variable]
        with pytest.raises(InputError, match=variable):
            comment.post(folder, environ)
        assert github.state.requests == []


class TestFailures:
    """CML or GitHub fails."""

    @pytest.mark.parametrize("updating", [False, True])
    @pytest.mark.parametrize("answer", [500, 403, 422, "hang"])
    def test_the_api_posts_if_cml_fails(
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
        with monkeypatch.context() as patched:
            if answer == "hang":
                patched.setattr(cml, "CML_TIMEOUT_SECONDS", 3)
            posted = comment.post(folder, environ)
        (body,) = github.state.bodies()
        assert body.startswith(f"{MARKER} {HEAD}")
        assert "CML did not post the comment" in posted.warnings[0]
        assert github.state.token not in repr(posted)

        github.state.failures.clear()
        assert comment.post(folder, environ).warnings == ()  # CML finds the comment that the API posted
        assert len(github.state.bodies()) == 1

    @pytest.mark.parametrize("command", ["no-such-program", "true", "false"], ids=["missing", "idle", "failing"])
    def test_the_api_posts_if_cml_does_nothing(
        self, github: GitHub, folder: Path, environ: dict[str, str], command: str
    ) -> None:
        posted = comment.post(folder, environ | {"CML": command})
        (body,) = github.state.bodies()
        assert body.startswith(f"{MARKER} {HEAD}")
        assert "CML did not post the comment" in posted.warnings[0]

    def test_a_comment_that_cml_posted_despite_an_error_is_not_posted_twice(
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
    def test_a_comment_that_cannot_be_posted_is_an_error(
        self,
        github: GitHub,
        folder: Path,
        environ: dict[str, str],
        answer: int | str,
        method: str,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        if answer == "hang":
            monkeypatch.setattr(cml, "CML_TIMEOUT_SECONDS", 3)
        github.state.failures.append(Failure(answer, method))
        with pytest.raises(CheckFailed) as refused:
            comment.post(folder, environ)
        sentence = str(refused.value)
        assert sentence.endswith(
            f"the report is in the artifact `report` of run 42: {github.url}/team/houses/actions/runs/42"
        )
        assert "\n" not in sentence
        assert github.state.token not in sentence
        assert github.state.comments == []
        assert (folder / "report.json").is_file()

    def test_an_unreachable_server_is_an_error(self, folder: Path, environ: dict[str, str]) -> None:
        with pytest.raises(CheckFailed, match="artifact `report` of run 42"):
            comment.post(folder, environ | {"GITHUB_API_URL": "https://localhost:1"})

    def test_an_untrusted_certificate_is_an_error(self, github: GitHub, folder: Path, environ: dict[str, str]) -> None:
        del environ["REQUESTS_CA_BUNDLE"]
        with pytest.raises(CheckFailed, match="SSLError"):
            comment.post(folder, environ)
        assert github.state.requests == []
