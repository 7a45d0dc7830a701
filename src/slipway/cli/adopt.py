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
  docs/github.md, docs/releasing.md        the rules of main, secrets, the agent of the cluster
"""


@app.command(epilog=EXIT_CODES)
def adopt(
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
    from slipway import adopt as step

    here = step.present()
    offered = step.proposed(here, name, _ask("repository", repository, step.proposed(here, name, None).repository))
    name = _ask("name", name, offered.name)
    offered = step.proposed(here, name, offered.repository)
    new = step.Identity(
        name=name,
        repository=offered.repository,
        image=_ask("image", image, offered.image),
        staging=_ask("staging-host", staging_host, offered.staging),
        production=_ask("production-host", production_host, offered.production),
    )
    step.check(new)
    flags = {"name": name, "repository": repository, "image": image, "staging": staging_host}
    flags["production"] = production_host
    told = {part for part, value in asdict(new).items() if flags[part] or value != asdict(offered)[part]}
    planned = step.plan(new, frozenset(told))
    step.apply(planned)
    removed = sum(content is None for content in planned.values())
    if planned:
        say("adopt", f"{escape(new.name)}: {len(planned) - removed} files written, {removed} removed")
    else:
        say("adopt", f"{escape(new.name)}: nothing to change")
    out.print(LEFT)


def _ask(what: str, said: str | None, offered: str) -> str:
    if said is not None or not sys.stdin.isatty():
        return offered if said is None else said
    return str(typer.prompt(what, default=offered or None))
