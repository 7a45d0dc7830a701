"""The message about an image that cannot be built."""

from pathlib import Path

import pytest
from docker.errors import BuildError

from slipway.release import image

ERROR = "ERROR: No matching distribution found for onnxruntime"


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (["Step 1/2 : RUN pip", f"{ERROR}.", "Ignoring sympy: markers do not match"], ERROR),
        (["Step 1/2 : COPY a b", "a: not found."], "a: not found"),
        (["Step 1/2 : COPY a b"], "the build failed"),
    ],
    ids=["error before other output", "last line", "error of the engine"],
)
def test_the_cause_of_a_failed_build_is_shown(
    lines: list[str], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    image.LOG.parent.mkdir()
    assert image._last_words(BuildError("the build failed", [{"stream": f"{line}\n"} for line in lines])) == words
    assert image.LOG.read_text().splitlines()[: len(lines)] == lines
