"""CML, which posts a report as a comment and updates it there."""

import re
import shlex
import tempfile
from collections.abc import Mapping
from pathlib import Path

from slipway.integrations import isolated_subprocess

TITLE = "slipway"
"""By which CML tells this comment from those of other reports."""
WATERMARK = re.compile(rf'!\[\]\(https://cml\.dev/watermark\.png#[0-9a-fA-F]+ "CML watermark {TITLE}"\)')
FIRST_PAGE = 30
"""Among how many comments, from the first, CML looks for the one that it updates: the last with its watermark."""
SECONDS = 60
"""How long it may take."""


def watermark(head: str) -> str:
    """The picture of no size that CML puts below a comment about a commit."""
    return f'![](https://cml.dev/watermark.png#{head} "CML watermark {TITLE}")'


def update(text: str, number: int, head: str, environ: Mapping[str, str]) -> isolated_subprocess.Done:
    """Create the comment on a pull request, or update it, with the program that CML names (`cml`)."""
    token = environ.get("GITHUB_TOKEN", "")
    server = environ.get("GITHUB_SERVER_URL") or "https://github.com"
    with tempfile.TemporaryDirectory() as home:
        file = Path(home) / "comment.md"
        file.write_text(text, encoding="utf-8", newline="\n")
        return isolated_subprocess.run(
            [
                *shlex.split(environ.get("CML") or "cml"),
                *("comment", "update"),
                "--driver=github",
                f"--repo={server}/{environ.get('GITHUB_REPOSITORY', '')}",
                f"--target=pr/{number}",
                f"--watermark-title={TITLE}",
                "--publish=false",  # or it sends pictures to a third party
                str(file),
            ],
            home=Path(home),
            environ=environ,
            variables={
                "REPO_TOKEN": token,
                "GITHUB_SHA": head,  # for the watermark; without, it asks git
                "ITERATIVE_DO_NOT_TRACK": "1",
            },
            secrets=[token],
            seconds=SECONDS,
        )
