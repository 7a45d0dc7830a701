"""The alarms of the live model, kept in one issue: opened, told again while they last, and closed when they end."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from functools import partial

from github.Issue import Issue
from github.Repository import Repository

from slipway import artifacts
from slipway.config import Params
from slipway.contract import Model
from slipway.errors import InputError, SlipwayError
from slipway.integrations import github, process
from slipway.integrations.actions import run_url
from slipway.integrations.git import MAIN
from slipway.monitoring import decay, drift
from slipway.monitoring.drift_sources import Named
from slipway.monitoring.ingest import ingest
from slipway.monitoring.source import Source, nothing_to_watch
from slipway.review.layout import printable

LABEL = "live-model"
TITLE = "The live model needs attention"
RINGS = "new-data.yml"
NEXT = (
    "What to do next: new data may have a better model in it, so `New data` was started; look at the pull requests "
    "that it opens. If none ships, change the model. `slipway decay` and `slipway drift` show every feature and slice; "
    "`slipway rollback production` brings an earlier model back."
)


@dataclass(frozen=True)
class Seen:
    """What was looked at, and what it says."""

    what: str
    alarm: bool
    words: str


def monitor(params: Params, model: Model, today: date, environ: Mapping[str, str]) -> Iterator[str]:
    """Look at decay and drift, and tell of alarms in the issue; yields what was seen and done.

    Reads main, the source, Prometheus where one is named. Raises InputError at the end where something could not be
    looked at: the issue is then neither closed nor opened for want of it.
    """
    if artifacts.Release.read(artifacts.RELEASE).champion is None:
        yield "nothing to do: no model is live yet"
        return
    source = nothing_to_watch(params, environ)
    if source and params.ingest.source:
        yield source
        return
    seen: list[Seen] = []
    failed: list[str] = []
    looks = (partial(_decay, params, model, today), partial(_drift, params, today, environ))
    for look in looks:
        try:
            seen += look()
        except SlipwayError as error:
            failed.append(str(error))
    for each in seen:
        yield f"{each.what}: {'ALARM' if each.alarm else 'no alarm'}: {each.words}"
    alarms = [each for each in seen if each.alarm]
    if alarms or not failed:
        yield _tell(alarms, environ)
    if failed:
        raise InputError("; ".join(failed))


def _decay(params: Params, model: Model, today: date) -> list[Seen]:
    """The live model on the newest delivery that there is, whether or not it was merged."""
    process.run("dvc", "pull", str(artifacts.DATA_DVC), str(artifacts.CHAMPION_DVC))
    if params.ingest.source:
        names = Source(params.ingest.source).names()
        ingest(params, model, today, known=[name.removesuffix(".csv") for name in names])
    try:
        found = decay.run(params, model, today)
    except decay.NothingNew as error:
        return [Seen("decay", False, str(error))]
    return [Seen(f"decay on {found.delivery}", found.alarm, found.reason)]


def _drift(params: Params, today: date, environ: Mapping[str, str]) -> list[Seen]:
    url = environ.get("PROMETHEUS_URL") or params.drift.prometheus
    if not url:
        return []
    named = Named(prometheus=url, token=environ.get("SLIPWAY_PROMETHEUS_TOKEN"))
    found = drift.run(params.drift, named, today)
    return [Seen("drift of what is asked", found.alarm, found.reason)]


def _tell(alarms: list[Seen], environ: Mapping[str, str]) -> str:
    """Open the issue, tell it again, or close it; without a token, nothing."""
    if not environ.get("GITHUB_TOKEN"):
        return "no issue is kept, as GITHUB_TOKEN is not set"
    repository = github.connect(environ)
    try:
        issue = next(iter(repository.get_issues(state="open", labels=[LABEL])), None)
        if alarms:
            return _alarm(repository, issue, alarms, environ)
        if issue is None:
            return "no alarm, and no issue is open"
        issue.create_comment(f"The alarm has ended. The run: {run_url(environ)}")
        issue.edit(state="closed")
    except github.ERRORS as error:
        raise InputError(f"The issue {TITLE!r} cannot be kept ({github.reason(error)}); run this again.") from None
    return f"the alarm has ended: {issue.html_url} is closed"


def _alarm(repository: Repository, issue: Issue | None, alarms: list[Seen], environ: Mapping[str, str]) -> str:
    told = [f"- **{each.what}**: {printable(each.words)}" for each in alarms]
    since = f"Since {issue.created_at:%Y-%m-%d}:" if issue else "Since today:"
    body = "\n".join([since, "", *told, "", NEXT, "", f"The run: {run_url(environ)}"])
    if issue is None:
        issue = repository.create_issue(TITLE, body, labels=[LABEL])
    else:
        issue.edit(body=body)
    try:
        repository.get_workflow(RINGS).create_dispatch(MAIN, throw=True)
    except github.ERRORS as error:
        raise InputError(
            f"The alarm is in {issue.html_url}, but {RINGS} cannot be started ({github.reason(error)}); start it with "
            f"`gh workflow run {RINGS}`."
        ) from None
    return f"the alarm is told in {issue.html_url}, and {RINGS} was started"
