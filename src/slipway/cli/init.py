"""The verb that makes a project of the template."""

import sys
from dataclasses import asdict
from typing import Annotated

import typer
from rich.markup import escape

from slipway.cli.terminal import EXIT_CODES, app, out, say

LEFT = """\
Left to do, in this order ([bold]docs/make-it-yours.md[/] does it once, from here to a release):

  git add --all && git commit -m 'Adopt the template' && git push    to main, before its rules are on
  src/model/                    what a row is, and how to fit; `contract.py` in src/slipway/ is what it must have
  params.yaml                   task, split, train.settings, evaluate.slices, gate.floors
  data/                         the first delivery, a CSV file
  make manifests                alarms and dashboard of this model
  dvc add data && dvc repro     ends with the verdict `first`
  dvc push                      into sample/remote/; a remote of your own: `dvc remote add --default NAME URL`
  a pull request with it        merged, it ships
  NOTICE, README.md, .github/CODEOWNERS    say whose it is
  docs/github.md, docs/clusters.md         the rules of main, secrets, the agent of the cluster
  slipway doctor                what of all this is missing, and the command that mends it
"""


@app.command(epilog=EXIT_CODES)
def init(
    name: Annotated[str | None, typer.Option(help="Of the project: its namespace, its registered model.")] = None,
    repository: Annotated[str | None, typer.Option(metavar="URL", help="That agents follow. Default: origin.")] = None,
    image: Annotated[str | None, typer.Option(help="Where images are pushed, without a tag.")] = None,
    staging_host: Annotated[str | None, typer.Option(metavar="HOST", help="Where staging answers.")] = None,
    production_host: Annotated[str | None, typer.Option(metavar="HOST", help="Where production answers.")] = None,
) -> None:
    """Make this copy of the template your project: your names, and none of the sample's data.

    Asks in a terminal for what no flag says; elsewhere takes what it would offer. Reads and writes params.yaml,
    kustomize/overlays/, kustomize/agents/, .github/CODEOWNERS; takes away the sample's data, source and champion. A
    value that a person has changed stays unless a flag names it. Exits 1 if git could not bring back what would change.
    """
    from slipway.fork import init as step

    flags = {"repository": repository, "name": name, "image": image}
    flags |= {"staging": staging_host, "production": production_host}
    here, answers, told = step.present(), dict[str, str](), set[str]()
    for part, flag in flags.items():
        offered = asdict(step.proposed(here, answers.get("name"), answers.get("repository")))[part]
        answers[part] = flag if flag is not None else _ask(part, offered)
        if flag is not None or answers[part] != offered:
            told.add(part)
    new = step.Identity(**answers)
    step.check(new)
    planned = step.plan(new, frozenset(told))
    step.apply(planned)
    removed = sum(content is None for content in planned.values())
    if planned:
        say("init", f"{escape(new.name)}: {len(planned) - removed} files written, {removed} removed")
    else:
        say("init", f"{escape(new.name)}: nothing to change")
    out.print(LEFT)


def _ask(part: str, offered: str) -> str:
    if not sys.stdin.isatty():
        return offered
    what = {"staging": "host name of staging", "production": "host name of production"}.get(part, part)
    return str(typer.prompt(what, default=offered or None))
