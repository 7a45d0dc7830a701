"""How CML is started, with programs in its place that tell what they are given."""

import json
import os
import shlex
import sys
import time
from pathlib import Path

import pytest

from demo.fakes.github_server import GitHub
from slipway.integrations import cml

HEAD = "a1" * 20
TELLS = """\
import json, os, pathlib, sys
told = {"arguments": sys.argv[1:], "variables": dict(os.environ), "folder": os.getcwd()}
told["text"] = pathlib.Path(sys.argv[-1]).read_text()
pathlib.Path(FILE).write_text(json.dumps(told))
"""


def program(path: Path, text: str) -> str:
    """A command line that runs a program of Python's."""
    path.write_text(text)
    return shlex.join([sys.executable, str(path)])


def surroundings(github: GitHub, command: str) -> dict[str, str]:
    return {"PATH": os.environ["PATH"], "CML": command} | github.variables()


def test_it_is_told_where_and_nothing_of_its_surroundings(github: GitHub, tmp_path: Path) -> None:
    told = tmp_path / "told.json"
    environ = surroundings(github, program(tmp_path / "tells.py", f"FILE = {str(told)!r}\n{TELLS}"))
    environ |= {
        "CML_COMMENT_TARGET": "commit",
        "CML_REPO": "https://elsewhere.invalid",
        "HOME": "/nowhere",
        "OTHER": "1",
    }
    assert cml.update("The report\n", 7, HEAD, environ).succeeded
    seen = json.loads(told.read_text())
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
    variables = seen["variables"]
    assert variables["REPO_TOKEN"] == github.state.token
    assert variables["ITERATIVE_DO_NOT_TRACK"] == "1"
    assert variables["GITHUB_SHA"] == HEAD
    assert variables["HOME"] == seen["folder"]
    assert variables["GIT_CONFIG_GLOBAL"] == f"{seen['folder']}/.gitconfig"
    assert variables["NODE_EXTRA_CA_CERTS"] == str(github.authority)
    assert not {"CML", "CML_COMMENT_TARGET", "CML_REPO", "GITHUB_TOKEN", "OTHER"} & set(variables)
    assert not Path(seen["folder"]).exists()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("import sys; print('one'); sys.exit('two\\nthree')", "three"),
        ('import sys; sys.exit(\'{"level": "error", "message": "Not Found"}\')', "Not Found"),
        ("import os, sys; sys.exit('it is ' + os.environ['REPO_TOKEN'])", "it is ***"),
        ("import sys; sys.exit('\\x1b[31m##[error]red')", " [31m[error]red"),
        ("raise SystemExit(3)", "it said nothing"),
    ],
)
def test_its_last_words_are_kept_without_the_token(github: GitHub, tmp_path: Path, text: str, words: str) -> None:
    done = cml.update("", 7, HEAD, surroundings(github, program(tmp_path / "fails.py", text)))
    assert not done.succeeded
    assert done.words == words


def test_it_can_be_missing(github: GitHub) -> None:
    done = cml.update("", 7, HEAD, surroundings(github, "no-such-program"))
    assert not done.succeeded
    assert done.words == "it cannot be started: No such file or directory"


def test_it_is_killed_with_all_that_it_started(github: GitHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A child that keeps the output open would be waited for as well."""
    monkeypatch.setattr(cml, "SECONDS", 1)
    text = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'import time; time.sleep(30)'])"
    start = time.monotonic()
    done = cml.update("", 7, HEAD, surroundings(github, program(tmp_path / "hangs.py", text)))
    assert (done.succeeded, done.words) == (False, "it did not end within 1 seconds")
    assert time.monotonic() - start < 10


def test_the_watermark_is_known_again() -> None:
    assert cml.WATERMARK.search(f"text\n\n{cml.watermark(HEAD)}")
    assert not cml.WATERMARK.search(cml.watermark(HEAD).replace("slipway", "another"))
