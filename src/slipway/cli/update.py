"""The verbs that update the framework and the locked packages."""

import os
from typing import Annotated

import typer
from rich.markup import escape

from slipway.cli.terminal import EXIT_CODES, app, out, say


@app.command(epilog=EXIT_CODES)
def update(
    tag: Annotated[str, typer.Argument(help="Tag of the template to update to, such as v0.2.0.")],
    source: Annotated[
        str | None,
        typer.Option("--from", metavar="URL", help="Git URL of the template. Default: the URL of the last update."),
    ] = None,
    keep: Annotated[
        list[str] | None,
        typer.Option(metavar="FILE", help="Framework file to leave unchanged. Can be repeated. Default: none."),
    ] = None,
) -> None:
    """Replace the framework with another version from the template. The fork's own files stay unchanged.

    Reads .slipway.json, the last commit, and the tag of the template. Writes the framework files and .slipway.json, and
    stages them in git. Then lists the problems that the new version finds in params.yaml, and the commands to run next.
    Exits 1 if there are uncommitted changes, or if you changed a framework file that --keep does not name. Exits 2 if
    the tag cannot be fetched. To undo an interrupted update, run `git reset --hard`.
    """
    from slipway.fork import update as step

    planned = step.plan(tag, source, keep or ())
    step.apply(planned)
    if not planned.changes:
        say("update", f"{escape(tag)}: nothing to change")
        return
    changed = len(planned.changes) - planned.added - planned.removed
    say(
        "update",
        f"{escape(planned.before)} to {escape(tag)}: {changed} files changed, {planned.added} added and "
        f"{planned.removed} removed; staged, not committed",
    )
    for path in planned.kept:
        say("kept", f"{escape(path)}, which differs from {escape(tag)}")
    for note in planned.notes:
        say("note", escape(note))
    for problem in step.problems_of_params():
        say("params", escape(problem))
    out.print("\nNext steps:\n")
    for command, reason in step.next_steps(planned):
        out.print(f"  {command:<28}  {reason}")


@app.command(epilog=EXIT_CODES)
def open_upgrade_pr() -> None:
    """Open a pull request with the package versions and image digests that `make upgrade` has written.

    Reads requirements/, the Dockerfile, the last commit and GITHUB_TOKEN. Pushes a branch to origin, and opens its pull
    request. Does nothing and exits 0 if no file has changed, or while the pull request of an earlier upgrade is open.
    Exits 1 if origin refuses the branch, and 2 if GitHub does not answer.
    """
    from slipway.fork import upgrade_pr

    say("upgrade", escape(upgrade_pr.open_upgrade_pr(os.environ)))
