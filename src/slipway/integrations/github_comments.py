"""The comments on a pull request: which is Slipway's own, and putting a text there just once."""

import hashlib
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass

from github.IssueComment import IssueComment
from github.PullRequest import PullRequest

from slipway.errors import CheckFailed
from slipway.integrations import cml
from slipway.integrations.github import ERRORS, reason

MARKER = "<!-- slipway-report"
PATIENCE = (0.0, 1.0, 2.0)
"""Seconds before each look for what was written; GitHub may show it a moment late."""


@dataclass(frozen=True)
class Text:
    """A report as it is written below a pull request, with how it is known again, whole and ours."""

    words: str
    head: str
    bundle: str | None

    @property
    def marked(self) -> str:
        """The text with a hidden first line: which commit, which model it shows, and which text about it."""
        digest = hashlib.sha256(self.words.encode()).hexdigest()
        return f"{MARKER} {self.head} {self.bundle or 'none'} {digest} -->\n{self.words}"

    @property
    def whole(self) -> str:
        """The comment as CML would leave it, so that CML finds it next time whoever wrote it."""
        return f"{self.marked}\n\n{cml.watermark(self.head)}"

    def is_in(self, comment: IssueComment) -> bool:
        """Whether a comment has it from its first line to the last."""
        first, last = self.marked.split("\n", 1)[0], cml.watermark(self.head)
        return _body(comment).startswith(first) and _body(comment).rstrip().endswith(last)


class NotPlaced(CheckFailed):
    """The text is not there, whatever was tried."""


@dataclass(frozen=True)
class Placed:
    address: str
    warnings: tuple[str, ...]


def place(pull: PullRequest, text: Text, login: str | None, environ: Mapping[str, str]) -> Placed:
    """Have the text there as the one comment of Slipway: by CML, or else by the API; `login` is the token's user.

    Raises NotPlaced if it is not there in the end, and one of `github.ERRORS` if the comments cannot be read.
    """
    warnings = []
    comments = list(pull.get_issue_comments())
    mine = ours(comments, login)
    why = "its watermark is in a comment of somebody else, or this one is beyond the first page"
    if _finds_ours(comments, mine):
        done = cml.update(text.marked, pull.number, text.head, environ)
        mine = _look(pull, text, login, PATIENCE if done.succeeded else PATIENCE[:1])
        why = done.words if not done.succeeded else "it ended well, but the comment is not there"
    if not any(map(text.is_in, mine)):
        warnings.append(f"CML did not post the comment ({why.rstrip('.')}), so it is written by GitHub's API.")
        mine = _write(pull, text, mine, login)
    kept, *_ = filter(text.is_in, mine)
    for other in mine:
        if other.id != kept.id:
            try:
                other.delete()
            except ERRORS as error:
                warnings.append(f"An earlier comment cannot be deleted ({reason(error)}): {other.html_url}")
    return Placed(kept.html_url, tuple(warnings))


def ours(comments: list[IssueComment], login: str | None) -> list[IssueComment]:
    """Those that Slipway wrote. Anybody can write the marker, so the author counts as well."""
    return [
        each
        for each in comments
        if _body(each).startswith(MARKER) and each.user and (each.user.type == "Bot" or each.user.login == login)
    ]


def shown(comment: IssueComment) -> tuple[str, str] | None:
    """The commit and the bundle of which a comment of ours tells; None where it shows no model."""
    found = re.match(rf"{MARKER} ([0-9a-f]{{40}}) ([0-9a-f]{{32}}) ", _body(comment))
    return (found[1], found[2]) if found else None


def _finds_ours(comments: list[IssueComment], mine: list[IssueComment]) -> bool:
    """Whether CML would update a comment of ours, or rightly create the first."""
    found = [each.id for each in comments[: cml.FIRST_PAGE] if cml.WATERMARK.search(_body(each))]
    return found[-1] in [each.id for each in mine] if found else not mine


def _write(pull: PullRequest, text: Text, mine: list[IssueComment], login: str | None) -> list[IssueComment]:
    """Edit our comment, or create it, and return ours; raises NotPlaced if the text is not there then."""
    failure = "it is not shown there"
    try:
        if mine:
            mine[-1].edit(text.whole)
        else:
            pull.create_issue_comment(text.whole)
    except ERRORS as error:
        failure = reason(error)
    mine = _look(pull, text, login, PATIENCE)
    if not any(map(text.is_in, mine)):
        raise NotPlaced(f"The comment on pull request {pull.number} cannot be written ({failure})")
    return mine


def _look(pull: PullRequest, text: Text, login: str | None, patience: tuple[float, ...]) -> list[IssueComment]:
    """Our comments, as soon as one of them has the text, or at the end of the patience."""
    mine: list[IssueComment] = []
    for pause in patience:
        time.sleep(pause)
        mine = ours(list(pull.get_issue_comments()), login)
        if any(map(text.is_in, mine)):
            break
    return mine


def _body(comment: IssueComment) -> str:
    return comment.body or ""
