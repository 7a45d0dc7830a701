"""Open, update and close one GitHub issue about the champion's alarms.

The first alarm opens the issue. The issue is updated while there are alarms, and closed when all alarms have ended.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date
from functools import cached_property

from github.Issue import Issue
from github.Repository import Repository

from slipway import artifacts
from slipway.bundle import load_bundle
from slipway.config import Live, Params
from slipway.contract import Model
from slipway.errors import InputError, SlipwayError
from slipway.integrations import github, process
from slipway.integrations.actions import run_url
from slipway.integrations.compute import LOCAL, Engine
from slipway.integrations.label_source import LabelSource
from slipway.integrations.log_store import LogStore
from slipway.monitoring import decay, drift, join_log
from slipway.monitoring.decay import DeliveredRows
from slipway.monitoring.drift_sources import DriftSource
from slipway.monitoring.ingest import ingest, reason_for_no_ingest
from slipway.monitoring.live_decay import champion_at_release, read_reported, reason_with_worst, record_reported
from slipway.monitoring.live_text import skew_sentence
from slipway.monitoring.open_source import open_source
from slipway.review.markdown import escape

LABEL = "live-model"
TITLE = "The champion needs attention"
WORKFLOW = "new-data.yml"
"""The workflow to start when there is an alarm."""
NEXT = (
    "What to do next: the workflow `New data` was started, because a model with new data may be better. Review the "
    "pull requests that it opens. If none of them ships, change the model. `slipway decay` and `slipway drift` show "
    "every feature and slice. `slipway rollback production` restores an earlier model."
)


@dataclass(frozen=True)
class Finding:
    """The result of one check. `check` is the name of the check, such as `drift of requests`."""

    check: str
    alarm: bool
    reason: str


@dataclass(frozen=True)
class Checked:
    """The input of all checks in one call of `monitor`."""

    params: Params
    model: Model
    today: date
    environ: Mapping[str, str]
    engine: Engine = LOCAL
    reported: dict[str, date] = field(default_factory=dict)
    """For each bundle, the last day of the newest period that was checked."""

    @cached_property
    def deliveries(self) -> DeliveredRows:
        """The deliveries in data/, which are read once."""
        return decay.delivered_rows(self.params, self.model, self.today)


def monitor(
    params: Params, model: Model, today: date, environ: Mapping[str, str], engine: Engine = LOCAL
) -> Iterator[str]:
    """Check the champion for decay, skew and drift, and update the issue. Yield a sentence for each result and action.

    The checks read the working directory (a clone of `main`) and the source of deliveries. If configured, the
    prediction log and Prometheus are read too. If a check raises an error, the issue is not closed, and InputError is
    raised at the end.
    """
    if artifacts.Release.read(artifacts.RELEASE).champion is None:
        yield "nothing to do: no model is live yet"
        return
    no_ingest = reason_for_no_ingest(params, environ)
    if no_ingest and params.ingest.source:
        yield no_ingest
        return
    found: list[Finding] = []
    failed: list[str] = []
    checked = Checked(params, model, today, environ, engine)
    for check in (_decay, check_requests, _drift):
        try:
            found += check(checked)
        except SlipwayError as error:
            failed.append(str(error))
    for each in found:
        yield f"{each.check}: {'ALARM' if each.alarm else 'no alarm'}: {each.reason}"
    alarms = [each for each in found if each.alarm]
    if alarms or not failed:
        yield _update_issue(alarms, environ)
        if params.live and environ.get("GITHUB_TOKEN"):  # without the issue, the next run must report them
            for bundle, last in checked.reported.items():
                record_reported(_store_of_reported(params.live), bundle, last)
    if failed:
        raise InputError("; ".join(failed))


def _decay(on: Checked) -> list[Finding]:
    """Evaluate the champion on the source's newest delivery, even if the delivery is not merged yet."""
    process.run("dvc", "pull", str(artifacts.DATA_DVC), str(artifacts.CHAMPION_DVC))
    if on.params.ingest.source:
        source = open_source(on.params, on.model, on.today, on.environ)
        ingest(on.params, on.model, on.today, source, known=source.listing().deliveries)
    try:
        found = decay.run(on.params, on.model, lambda: on.deliveries)
    except decay.NoNewRows as error:
        return [Finding("decay", False, str(error))]
    return [Finding(f"decay on {found.delivery}", found.alarm, reason_with_worst(found))]


def check_requests(on: Checked) -> list[Finding]:
    """Join the prediction log with its labels, and check for decay and skew.

    Return no findings if params.yaml has no section `live`.
    """
    params, model = on.params, on.model
    if params.live is None:
        return []
    bundle = load_bundle(artifacts.champion_path("merge a pull request to release one"))
    champion = champion_at_release(params, model, lambda: on.deliveries, bundle)
    vars(on).pop("deliveries", None)  # frees memory for the join
    secret = on.environ.get("SLIPWAY_PREDICTION_LOG_SECRET")
    to = LogStore(params.live.joined) if params.live.joined else None
    log = LogStore(params.live.log)
    labels = LabelSource(params.live.labels, params.live.labels_query, params.live.labels_format, on.environ)
    reported = read_reported(_store_of_reported(params.live))
    live = join_log.run(
        params,
        model,
        on.today,
        log,
        labels,
        bundle=bundle,
        secret=secret,
        champion=champion,
        to=to,
        engine=on.engine,
        reported=reported,
    )
    found = [
        Finding("training-serving skew", bool(each.different), skew_sentence(each))
        for each in live.skew
        if not each.unchecked
    ]
    found += [Finding("decay on requests", each.alarm, each.reason) for each in live.decays]
    if checked := [each.last for each in live.decays if each.last]:
        on.reported[bundle.hash] = checked[-1]
    return found


def _store_of_reported(live: Live) -> LogStore:
    return LogStore(live.joined or live.log)


def _drift(on: Checked) -> list[Finding]:
    """Compare the requests with the training data. If Prometheus is not set or fails, use the prediction log."""
    params, sources = on.params, []
    if url := on.environ.get("PROMETHEUS_URL") or params.drift.prometheus:
        sources.append(DriftSource(prometheus=url, token=on.environ.get("SLIPWAY_PROMETHEUS_TOKEN")))
    if params.live:
        sources.append(DriftSource(log=params.live.log))
    failed = ""
    for source in sources:
        try:
            found = drift.run(params.drift, source, on.today)
        except InputError as error:
            if source == sources[-1]:
                raise
            failed = f"; the log was used, because Prometheus failed: {error}"
            continue
        rows = f"bundle {found.champion[:12]}, {params.drift.window} until {on.today}"
        return [Finding("drift of requests", found.alarm, f"{rows}: {found.reason}{failed}")]
    return []


def _update_issue(alarms: list[Finding], environ: Mapping[str, str]) -> str:
    """Open, update or close the issue. Return a sentence about the change."""
    if not environ.get("GITHUB_TOKEN"):
        return "no issue is kept, because GITHUB_TOKEN is not set"
    repository = github.connect(environ)
    try:
        issue = next(iter(repository.get_issues(state="open", labels=[LABEL])), None)
        if alarms:
            return _open_or_update(repository, issue, alarms, environ)
        if issue is None:
            return "no alarm, and no open issue"
        issue.create_comment(f"The alarm has ended. The run: {run_url(environ)}")
        issue.edit(state="closed")
    except github.ERRORS as error:
        raise InputError(f"The issue {TITLE!r} cannot be updated ({github.reason(error)}); run this again.") from None
    return f"the alarm has ended: {issue.html_url} is closed"


def as_markdown(alarm: Finding) -> str:
    """Return an alarm as a line of Markdown. The names of deliveries, columns and values are escaped."""
    return f"- **{escape(alarm.check)}**: {escape(alarm.reason)}"


def _open_or_update(
    repository: Repository, issue: Issue | None, alarms: list[Finding], environ: Mapping[str, str]
) -> str:
    since = f"Since {issue.created_at:%Y-%m-%d}:" if issue else "Since today:"
    listed = [as_markdown(each) for each in alarms]
    body = "\n".join([since, "", *listed, "", NEXT, "", f"The run: {run_url(environ)}"])
    if issue is None:
        issue = repository.create_issue(TITLE, body, labels=[LABEL])
    else:
        issue.edit(body=body)
    if problem := github.start_workflow(repository, WORKFLOW):
        raise InputError(f"{issue.html_url} lists the alarms, but {problem}")
    return f"{issue.html_url} lists the alarms, and {WORKFLOW} was started"
