"""Steps of the tests with a repository on the fake of GitHub: clone, propose, check, comment, read the report."""

from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
from pandera.dtypes import is_datetime, is_string

from demo.fakes.github_repo import CHECKS, GitHubRepo, PullRequest
from demo.fakes.workflow_run import Run
from slipway.contract import load_model
from slipway.monitoring.log_tables import file_name, to_parquet, to_table
from slipway.review.report import Report
from slipway.serving.log_segments import Account, Block, Header, LoggedColumn, Segment
from tests.slipway.conftest import ROOT, Repository


def clone(repo: GitHubRepo, name: str) -> Repository:
    """Make a clone with `main` checked out."""
    return Repository(repo.copy(name))


def propose(repo: GitHubRepo, work: Repository, number: int, branch: str, **how: Any) -> PullRequest:
    """Open a pull request for the last commit of a clone, or push that commit to the open one."""
    return repo.push(work.path, number, branch, **how)


def check(repo: GitHubRepo, pull: PullRequest) -> Run:
    """Run what GitHub has started to check a pull request."""
    return repo.run(repo.take(CHECKS, pull))


def comment(repo: GitHubRepo, pull: PullRequest) -> Run:
    """Run what GitHub has started to post a report."""
    return repo.run(repo.take("comment.yml", pull))


def read_report(repo: GitHubRepo, run: Run) -> Report:
    """Read the report of a run."""
    return Report.model_validate_json(repo.reported(run, "report.json"))


def write_joined_log(folder: Path, days: int = 12, rows: int = 20) -> None:
    """Write a log whose requests are sales that no model was trained on. Their price became known on the next day."""
    model = load_model()
    sales = pd.read_csv(ROOT / "sample/source/1998H1.csv")
    columns = tuple(LoggedColumn(name, _kind(model.SCHEMA.columns[name].dtype)) for name in model.FEATURES)
    key = tuple(each for name in model.KEY for each in columns if each.name == name)
    for number in range(days):
        part, day = sales.iloc[number * rows : (number + 1) * rows], date(2020, 1, 1) + timedelta(days=number)
        header = Header(
            "b" * 64, "houses", str(day), "0", number, rows, columns, (model.TARGET,), key, False, Account()
        )
        at = pd.Timestamp(day, tz="UTC").timestamp()
        requests = [(f"r-{number}-{i}", at + i, 0.001) for i in range(rows)]
        values = [part[column.name].tolist() for column in columns]
        answers = part[model.TARGET].to_numpy("<f4").tobytes()
        block = Block(requests, [*range(rows)], [0] * rows, None, values, answers)
        known_at = pa.array([day + timedelta(days=1)] * rows, pa.date32())
        table = to_table(Segment(header, (block,))).append_column("truth", pa.array(part[model.TARGET].to_numpy()))
        path = folder / file_name(header)
        path.parent.mkdir(parents=True)
        path.write_bytes(to_parquet(table.append_column("known_at", known_at)))


def _kind(dtype: Any) -> str:
    return "date" if is_datetime(dtype) else "category" if is_string(dtype) else "number"
