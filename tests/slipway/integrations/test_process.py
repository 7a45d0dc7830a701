"""Programs run with the right environment, end in time, and report their own error."""

import os
import sys
import time
from pathlib import Path

import psutil
import pytest

from slipway.errors import InputError
from slipway.integrations.process import ProcessFailed, isolated_environment, run


def python(code: str, **options: object) -> str:
    return run(sys.executable, "-c", code, **options)  # type: ignore[arg-type]


def message(code: str, **options: object) -> str:
    with pytest.raises(ProcessFailed) as failed:
        python(code, **options)
    return failed.value.message


def test_run_returns_the_output_without_surrounding_whitespace() -> None:
    assert python("print(' one ')") == "one"


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("import sys; print('one'); sys.exit('two\\nthree')", "three"),
        ("print('only output'); raise SystemExit(1)", "only output"),
        ("raise SystemExit(3)", "it printed nothing"),
        ('import sys; sys.exit(\'{"level": "error", "message": "Not Found"}\')', "Not Found"),
        ("import sys; sys.exit('\\x1b[31m##[error]red')", " [31m[error]red"),
        (
            "import sys; sys.exit('WARNING: w\\nERROR: failed to pull - Checkout failed for:\\ndata\\n<https://e>')",
            "failed to pull - Checkout failed for: data <https://e>",
        ),
    ],
    ids=["last line", "output", "nothing", "JSON of CML", "log commands", "DVC"],
)
def test_the_message_is_the_error_of_the_program(code: str, expected: str) -> None:
    assert message(code) == expected


def test_a_failure_keeps_everything_that_was_printed() -> None:
    with pytest.raises(ProcessFailed, match="failed: two") as failed:
        python("import sys; print('one'); sys.exit('two')")
    assert failed.value.output == "one\ntwo\n"


def test_secrets_are_masked() -> None:
    with pytest.raises(ProcessFailed) as failed:
        python("import sys; print('a hunter2'); sys.exit('b hunter2')", secrets=["hunter2", ""])
    assert failed.value.message == "b ***"
    assert "hunter2" not in failed.value.output


ADDRESS = "https://ada:hunter2@example.com/path?signature=hunter2"


@pytest.mark.parametrize("echo", [False, True])
def test_secrets_in_addresses_are_masked(capfd: pytest.CaptureFixture[str], echo: bool) -> None:
    with pytest.raises(ProcessFailed) as failed:
        run(sys.executable, "-c", "import sys; print(sys.argv[1]); sys.exit(sys.argv[1])", ADDRESS, echo=echo)
    assert failed.value.message == "https://***@example.com/path?***"
    assert "hunter2" not in "".join([str(failed.value), failed.value.output, *capfd.readouterr()])


def test_a_missing_program_is_an_error() -> None:
    with pytest.raises(InputError, match=r"^The program no-such-program is not on the PATH; install it\.$"):
        run("no-such-program")


def test_a_program_is_killed_with_everything_that_it_started(tmp_path: Path) -> None:
    """A child that keeps the output open must not delay the end."""
    child = f"import os, time; open({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid())); time.sleep(60)"
    start = time.monotonic()
    code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    assert message(code, timeout_seconds=3) == "it did not end within 3 seconds"
    assert time.monotonic() - start < 30
    pid = int((tmp_path / "pid").read_text())
    deadline = time.monotonic() + 10  # the kernel ends the child a little later
    while is_running(pid) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not is_running(pid)


def is_running(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_echo_shows_output_and_errors_in_the_terminal(capfd: pytest.CaptureFixture[str]) -> None:
    printed = python("import sys; print('one'); print('two', file=sys.stderr)", echo=True)
    assert set(printed.split()) == set(capfd.readouterr().out.split()) == {"one", "two"}


def test_a_program_cannot_read_from_the_terminal() -> None:
    assert python("import sys; print(repr(sys.stdin.read()))") == "''"


@pytest.mark.parametrize("before", ["", "/packages"])
def test_the_code_of_the_repository_comes_before_other_code(
    before: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", before)
    found = python("import os; print(os.environ['PYTHONPATH'])", at=tmp_path).split(os.pathsep)
    assert found == [str(tmp_path / "src"), *filter(None, [before])]


def test_an_isolated_program_inherits_only_named_variables(tmp_path: Path) -> None:
    environ = {"PATH": os.environ["PATH"], "https_proxy": "http://proxy", "HOME": "/nowhere", "GITHUB_TOKEN": "t"}
    code = "import json, os; print(json.dumps(dict(os.environ)))"
    printed = python(code, environment=isolated_environment(tmp_path, environ), variables={"EXTRA": "1"})
    assert "GITHUB_TOKEN" not in printed
    assert f'"HOME": "{tmp_path}"' in printed
    assert '"https_proxy": "http://proxy"' in printed
    assert '"EXTRA": "1"' in printed
    assert "PYTHONPATH" not in printed
