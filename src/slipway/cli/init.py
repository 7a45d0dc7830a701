"""The verb that turns a copy of the template into a project."""

import sys
from dataclasses import asdict
from typing import Annotated

import typer
from rich.markup import escape

from slipway.cli.terminal import EXIT_CODES, app, out, say

NEXT_STEPS = """\
Next steps ([bold]docs/make-it-yours.md[/] shows each of them, up to the first release):

  git add --all && git commit -m 'Start from the template' && git push    to main, before its rules are set
  src/model/                    schema, features and fit, as src/slipway/contract.py describes
  params.yaml                   task, split, train.settings, evaluate.slices, gate.floors
  docs/storage.md               your own DVC remote; without it, `dvc push` adds the data to git, in sample/remote/
  data/                         the first delivery: a CSV or Parquet file, or a folder of such files
  dvc add data && dvc repro     ends with the verdict `first`
  dvc push                      data and models, to the DVC remote
  make manifests                alerts and dashboard for the features of this model
  make test                     checks that src/model/ implements the interface in src/slipway/contract.py
  a pull request                merging it releases the model
  README.md, NOTICE, .github/CODEOWNERS    owners, purpose, source of the data
  docs/github.md, docs/clusters.md         rules of main, secrets, the agent in the cluster
  slipway doctor                lists what is still missing, with a fix for each
"""


@app.command(epilog=EXIT_CODES)
def init(
    name: Annotated[
        str | None,
        typer.Option(
            help="Name for the project, its namespace and its registered model. Default: the repository's name."
        ),
    ] = None,
    repository: Annotated[
        str | None,
        typer.Option(metavar="URL", help="Git repository that Argo CD or Flux deploys from. Default: origin."),
    ] = None,
    image: Annotated[
        str | None, typer.Option(help="Address to push images to, without a tag. Default: ghcr.io/OWNER/NAME.")
    ] = None,
    staging_host: Annotated[
        str | None,
        typer.Option(metavar="HOST", help="Host name of the staging server. Default: NAME-staging.example.com."),
    ] = None,
    production_host: Annotated[
        str | None, typer.Option(metavar="HOST", help="Host name of the production server. Default: NAME.example.com.")
    ] = None,
) -> None:
    """Turn this copy of the template into a project: set its names and remove the sample.

    In a terminal, prompts for each value that no option sets. Without a terminal, uses the default values. Reads and
    writes params.yaml, kustomize/overlays/, kustomize/agents/, .github/CODEOWNERS, README.md and NOTICE. Writes
    .slipway.json. Removes the sample data, demo/, benchmarks/, tests/slipway/ and docs/decisions/. In the files that it
    writes, keeps the values that a person has changed. Exits 1 if a file that it would change has uncommitted changes,
    or if data/ contains files that are not part of the sample.
    """
    from slipway.fork import identity
    from slipway.fork import init as step

    flags = {"repository": repository, "name": name, "image": image}
    flags |= {"staging": staging_host, "production": production_host}
    present, answers = step.present_identity(), dict[str, str]()
    for part, flag in flags.items():
        proposed = asdict(identity.propose(present, answers.get("name"), answers.get("repository")))[part]
        answers[part] = flag if flag is not None else _ask(part, proposed)
    new = identity.Identity(**answers)
    identity.check(new)
    planned = step.plan(new)
    step.apply(planned)
    if planned.is_empty:
        say("init", f"{escape(new.name)}: nothing to change")
    else:
        size = step.measure()
        say("init", f"{escape(new.name)}: {size.own[0]} files are yours, with {size.own[1]:,} lines")
        say(
            "",
            f"{size.code[0]} files in src/slipway/ and {size.outside[0]} others belong to the framework "
            f"({size.code[1]:,} and {size.outside[1]:,} lines); `slipway update` replaces them",
        )
    for kept in planned.kept:
        say("kept", f"{escape(str(kept.file))} has no line `{escape(kept.expected)}`, because a person changed it")
    out.print(NEXT_STEPS)


def _ask(part: str, proposed: str) -> str:
    if not sys.stdin.isatty():
        return proposed
    question = {"staging": "host name of staging", "production": "host name of production"}.get(part, part)
    return str(typer.prompt(question, default=proposed or None))
