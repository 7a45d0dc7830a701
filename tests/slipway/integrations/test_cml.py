"""CML is started with the right input, which a fake program records."""

import json
import os
import shlex
import sys
from pathlib import Path

import pytest

from demo.fakes.github_server import GitHub
from slipway.errors import InputError
from slipway.integrations import cml
from slipway.integrations.process import ProcessFailed

HEAD = "a1" * 20
RECORDS = """\
import json, os, pathlib, sys
record = {"arguments": sys.argv[1:], "variables": dict(os.environ), "folder": os.getcwd()}
record["text"] = pathlib.Path(sys.argv[-1]).read_text()
pathlib.Path(FILE).write_text(json.dumps(record))
"""


def python_program(path: Path, text: str) -> str:
    """Write a Python program and return the command line that runs it."""
    path.write_text(text)
    return shlex.join([sys.executable, str(path)])


def variables(github: GitHub, command: str) -> dict[str, str]:
    return {"PATH": os.environ["PATH"], "CML": command} | github.variables()


def test_cml_gets_the_pull_request_and_nothing_of_this_environment(github: GitHub, tmp_path: Path) -> None:
    record = tmp_path / "record.json"
    environ = variables(github, python_program(tmp_path / "records.py", f"FILE = {str(record)!r}\n{RECORDS}"))
    environ |= {
        "CML_COMMENT_TARGET": "commit",
        "CML_REPO": "https://elsewhere.invalid",
        "HOME": "/nowhere",
        "OTHER": "1",
    }
    cml.update_comment("The report\n", 7, HEAD, environ)
    seen = json.loads(record.read_text())
    assert seen["arguments"][:-1] == [
        "comment",
        "update",
        "--driver=github",
        f"--repo={github.url}/team/houses",
        "--target=pr/7",
        "--watermark-title=slipway",
        "--publish=false",
    ]
    assert seen["text"] == "The report\n"
    received = seen["variables"]
    assert received["REPO_TOKEN"] == github.state.token
    assert received["ITERATIVE_DO_NOT_TRACK"] == "1"
    assert received["GITHUB_SHA"] == HEAD
    assert received["HOME"] == seen["folder"]
    assert received["GIT_CONFIG_GLOBAL"] == f"{seen['folder']}/.gitconfig"
    assert received["NODE_EXTRA_CA_CERTS"] == str(github.authority)
    assert not {"CML", "CML_COMMENT_TARGET", "CML_REPO", "GITHUB_TOKEN", "OTHER"} & set(received)
    assert not Path(seen["folder"]).exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('import sys; sys.exit(\'{"level": "error", "message": "Not Found"}\')', "Not Found"),
        ("import os, sys; sys.exit('it is ' + os.environ['REPO_TOKEN'])", "it is ***"),
    ],
)
def test_the_error_of_cml_never_shows_the_token(github: GitHub, tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ProcessFailed) as failed:
        cml.update_comment("", 7, HEAD, variables(github, python_program(tmp_path / "fails.py", text)))
    assert failed.value.message == message


def test_missing_cml_is_an_error(github: GitHub) -> None:
    with pytest.raises(InputError, match="The program no-such-program is not on the PATH; install it"):
        cml.update_comment("", 7, HEAD, variables(github, "no-such-program"))


def test_the_watermark_of_another_report_does_not_match() -> None:
    assert cml.WATERMARK.search(f"text\n\n{cml.watermark(HEAD)}")
    assert not cml.WATERMARK.search(cml.watermark(HEAD).replace("slipway", "another"))
