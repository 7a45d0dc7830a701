"""Run CML, the program that posts a report as a comment on a pull request and later updates that comment."""

import re
import shlex
import tempfile
from collections.abc import Mapping
from pathlib import Path

from slipway.integrations import actions, process

TITLE = "slipway"
"""The title in the watermark, which distinguishes Slipway's comment from CML's comments for other reports."""
WATERMARK = re.compile(rf'!\[\]\(https://cml\.dev/watermark\.png#[0-9a-fA-F]+ "CML watermark {TITLE}"\)')
COMMENTS_SEARCHED = 30
"""Number of comments that CML searches for its watermark. CML updates the last comment that has the watermark."""
CML_TIMEOUT_SECONDS = 60


def watermark(head: str) -> str:
    """Return the invisible image that CML appends to a comment about the commit `head`."""
    return f'![](https://cml.dev/watermark.png#{head} "CML watermark {TITLE}")'


def update_comment(text: str, number: int, head: str, environ: Mapping[str, str]) -> None:
    """Create or update the comment on pull request `number` with the command in the variable CML (default: `cml`).

    Raises InputError if CML is not installed, and ProcessFailed if it fails.
    """
    token = environ.get("GITHUB_TOKEN", "")
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        file = home / "comment.md"
        file.write_text(text, encoding="utf-8", newline="\n")
        process.run(
            *shlex.split(environ.get("CML") or "cml"),
            *("comment", "update"),
            "--driver=github",
            f"--repo={actions.repository_url(environ)}",
            f"--target=pr/{number}",
            f"--watermark-title={TITLE}",
            "--publish=false",  # otherwise CML uploads images to a third party
            str(file),
            at=home,
            environment=process.isolated_environment(home, environ),
            variables={
                "REPO_TOKEN": token,
                "GITHUB_SHA": head,  # CML writes this commit to the watermark, and runs git if the variable is not set
                "ITERATIVE_DO_NOT_TRACK": "1",
            },
            timeout_seconds=CML_TIMEOUT_SECONDS,
            secrets=[token],
        )
