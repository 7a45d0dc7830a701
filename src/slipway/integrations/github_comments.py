"""Write Slipway's comment on a pull request, and delete Slipway's earlier comments."""

import hashlib
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from github.IssueComment import IssueComment
from github.PullRequest import PullRequest

from slipway.errors import CheckFailed, InputError
from slipway.integrations import cml
from slipway.integrations.github import ERRORS, reason
from slipway.integrations.process import ProcessFailed

MARKER = "<!-- slipway-report"
READ_DELAYS_SECONDS = (0.0, 1.0, 2.0)
"""The pause before each attempt to read the comments, because GitHub sometimes shows a new comment late."""


@dataclass(frozen=True)
class CommentText:
    """The text of a comment about the commit `head`. `bundle` is the model that the comment shows, or None.

    `champion_stays` is true if the change may be merged without releasing that bundle. `is_overruled` is true if the
    label `ship-anyway` is valid for the commit.
    """

    text: str
    head: str
    bundle: str | None
    champion_stays: bool = False
    is_overruled: bool = False

    @property
    def marked(self) -> str:
        """The text after a hidden first line with the commit, the bundle, a word for the two flags, and a hash."""
        digest = hashlib.sha256(self.text.encode()).hexdigest()
        flag = "stays" if self.champion_stays else "overruled" if self.is_overruled else "-"
        return f"{MARKER} {self.head} {self.bundle or 'none'} {flag} {digest} -->\n{self.text}"

    @property
    def complete(self) -> str:
        """The marked text with CML's watermark, so that CML can update the comment even if GitHub's API posted it."""
        return f"{self.marked}\n\n{cml.watermark(self.head)}"

    def is_in(self, comment: IssueComment) -> bool:
        """Return whether a comment has this text: the same hidden first line, and the watermark at its end."""
        first, last = self.marked.split("\n", 1)[0], cml.watermark(self.head)
        return _body(comment).startswith(first) and _body(comment).rstrip().endswith(last)


@dataclass(frozen=True)
class ShownModel:
    """The bundle that a comment shows. `champion_stays` is true if the bundle is not released after the merge.

    `at` is the time when the comment was written. `is_overruled` is true if the label `ship-anyway` was valid then.
    """

    bundle: str
    champion_stays: bool
    is_overruled: bool
    at: datetime


class NotPosted(CheckFailed):
    """Error if neither CML nor GitHub's API could write the comment."""


@dataclass(frozen=True)
class PostedComment:
    """The URL of the posted comment, and warnings about problems that occurred before it was posted."""

    address: str
    warnings: tuple[str, ...]


def post_comment(pull: PullRequest, text: CommentText, login: str | None, environ: Mapping[str, str]) -> PostedComment:
    """Make `text` the only comment of Slipway on a pull request. CML posts the text.

    If CML fails, GitHub's API posts the text. `login` is the user that the token belongs to. Raises NotPosted if the
    comment does not appear after both attempts, and one of `github.ERRORS` if the comments cannot be read.
    """
    warnings = []
    comments = list(pull.get_issue_comments())
    own = own_comments(comments, login)
    problem = "its watermark is in a comment of another user, or Slipway's comment is beyond the first page"
    if _cml_finds_own(comments, own):
        problem = _update_with_cml(pull, text, environ)
        own = _read_until_posted(pull, text, login, READ_DELAYS_SECONDS[:1] if problem else READ_DELAYS_SECONDS)
        problem = problem or "it succeeded, but the comment does not appear"
    if not any(map(text.is_in, own)):
        warnings.append(f"CML did not post the comment ({problem.rstrip('.')}), so GitHub's API posts it.")
        own = _write_with_api(pull, text, own, login)
    kept, *_ = filter(text.is_in, own)
    for other in own:
        if other.id != kept.id:
            try:
                other.delete()
            except ERRORS as error:
                warnings.append(f"An earlier comment cannot be deleted ({reason(error)}): {other.html_url}")
    return PostedComment(kept.html_url, tuple(warnings))


def own_comments(comments: list[IssueComment], login: str | None) -> list[IssueComment]:
    """Return the comments that Slipway wrote. The author is checked too, because any user can write the marker."""
    return [
        each
        for each in comments
        if _body(each).startswith(MARKER) and each.user and (each.user.type == "Bot" or each.user.login == login)
    ]


def shown_on(pull: PullRequest, login: str | None) -> ShownModel | None:
    """Return the model in the newest report on the last commit of a pull request, or None without such a report.

    Raises CheckFailed if the report was edited by hand, and one of `github.ERRORS` if GitHub does not answer.
    """
    for comment in reversed(own_comments(list(pull.get_issue_comments()), login)):
        if found := re.match(rf"{MARKER} {pull.head.sha} ([0-9a-f]{{32}}) (\S+) ", _body(comment)):
            if edited_by_another(comment):
                raise CheckFailed(
                    f"The report {comment.html_url} was edited by hand, so it does not count; run the workflow "
                    "`Comment` again (`gh workflow run comment.yml -f run=NUMBER`), and then this workflow."
                )
            flag, at = found[2], comment.updated_at
            return ShownModel(found[1], champion_stays=flag == "stays", is_overruled=flag == "overruled", at=at)
    return None


def edited_by_another(comment: IssueComment) -> bool:
    """Return whether the last edit was made by a user other than the author.

    This check is needed, because any user who can push can edit a bot's comment.

    Raises one of `github.ERRORS` if GitHub does not answer. Only the GraphQL API returns the editor:
    https://docs.github.com/graphql/reference/interfaces#comment
    """
    fields = "author { login } editor { login }"
    _, answer = comment.requester.graphql_node(comment.node_id, fields, "IssueComment")
    node = answer["data"]["node"]
    return node["editor"] is not None and node["editor"] != node["author"]


def _cml_finds_own(comments: list[IssueComment], own: list[IssueComment]) -> bool:
    """Return whether CML is safe to use: it would update Slipway's own comment, or create the first comment."""
    found = [each.id for each in comments[: cml.COMMENTS_SEARCHED] if cml.WATERMARK.search(_body(each))]
    return found[-1] in [each.id for each in own] if found else not own


def _update_with_cml(pull: PullRequest, text: CommentText, environ: Mapping[str, str]) -> str:
    """Post the comment with CML. Return the reason why CML failed, or an empty text."""
    try:
        cml.update_comment(text.marked, pull.number, text.head, environ)
    except ProcessFailed as error:
        return error.message
    except InputError as error:
        return str(error)
    return ""


def _write_with_api(
    pull: PullRequest, text: CommentText, own: list[IssueComment], login: str | None
) -> list[IssueComment]:
    """Edit or create the comment, and return Slipway's comments. Raises NotPosted if none of them has the text then."""
    failure = "GitHub does not show it"
    try:
        if own:
            own[-1].edit(text.complete)
        else:
            pull.create_issue_comment(text.complete)
    except ERRORS as error:
        failure = reason(error)
    own = _read_until_posted(pull, text, login, READ_DELAYS_SECONDS)
    if not any(map(text.is_in, own)):
        raise NotPosted(f"The comment on pull request {pull.number} cannot be written ({failure})")
    return own


def _read_until_posted(
    pull: PullRequest, text: CommentText, login: str | None, delays: tuple[float, ...]
) -> list[IssueComment]:
    """Read Slipway's comments after each delay, until one has the text. Return the comments that were read last."""
    own: list[IssueComment] = []
    for delay in delays:
        time.sleep(delay)
        own = own_comments(list(pull.get_issue_comments()), login)
        if any(map(text.is_in, own)):
            break
    return own


def _body(comment: IssueComment) -> str:
    return comment.body or ""
