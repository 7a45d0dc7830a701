"""Print tables of environments and of releases, and compare a release with its server, image and commit."""

from collections.abc import Mapping

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from slipway.config import Params
from slipway.errors import InputError
from slipway.integrations.git import known
from slipway.release.history import environments, releases, rollbacks
from slipway.release.status import chain

MARKS = {True: "[green]holds[/]", False: "[red]BROKEN[/]", None: "[yellow]unchecked[/]"}


def status_table() -> Table:
    """Return a table with one row for each environment and its current release."""
    now = known()
    table = _table("environment", "image", "since", "commit", "data", "version", "verdict")
    for name in environments(now):
        newest = next(releases(now, name), None)
        if newest is None:
            table.add_row(name, "nothing yet", *[""] * 5)
            continue
        image, provenance = newest.deployed.image, newest.deployed.provenance
        table.add_row(
            name,
            image.tag,
            f"{newest.when:%Y-%m-%d %H:%M}",
            newest.commit[:7],
            (provenance.data or "")[:7],
            newest.deployed.registry_version or "",
            escape(provenance.verdict or ""),
        )
    return table


def releases_table(environment: str) -> Table:
    """Return a table with one row for each release, the newest first. Raises InputError for an unknown environment."""
    now = known()
    if environment not in environments(now):
        raise InputError(
            f"There is no environment {environment!r}; there are {', '.join(environments(now)) or 'none'}."
        )
    history = list(releases(now, environment))
    back = rollbacks(history)
    table = _table("when", "commit", "tag", "bundle", "what")
    for number, each in enumerate(history):
        table.add_row(
            f"{each.when:%Y-%m-%d %H:%M}",
            each.commit[:7],
            each.deployed.image.tag,
            each.deployed.provenance.bundle[:7],
            escape(each.subject) + (" (rollback)" if number in back else ""),
        )
    return table


def print_chain(out: Console, environment: str, url: str, params: Params, environ: Mapping[str, str]) -> bool:
    """Print each comparison of a release with its commit, image and server. Return False if one of them differs."""
    broken = []
    for link in chain(known(), environment, url, params, environ):
        out.print(f"[bold]{link.name:>9}[/]  {MARKS[link.holds]}  {escape(link.words)}")
        broken += [link.name] if link.holds is False else []
    if broken:
        out.print(f"The chain is broken at: {', '.join(broken)}.")
    return not broken


def _table(*columns: str) -> Table:
    table = Table(box=None, padding=(0, 1, 0, 0))
    for column in columns:
        table.add_column(column, overflow="fold")
    return table
