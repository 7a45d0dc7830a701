"""`slipway` computes with the same code on every x86 processor, so that runners give the same bytes."""

import os
import platform
import subprocess
import sys

import pytest

RUNTIME = "import slipway.cli, numpy; numpy.show_runtime()"
SETTINGS = ("NPY_DISABLE_CPU_FEATURES", "OPENBLAS_CORETYPE", "MKL_CBWR", "ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA")


def runtime(**variables: str) -> str:
    unset = {key: value for key, value in os.environ.items() if key not in SETTINGS}
    return subprocess.run(
        [sys.executable, "-c", RUNTIME], env=unset | variables, capture_output=True, text=True, check=True
    ).stdout


@pytest.mark.parametrize(
    ("variables", "architecture"), [({}, "Haswell"), ({"OPENBLAS_CORETYPE": "Nehalem"}, "Nehalem")]
)
def test_numpy_and_blas_use_the_code_for_avx2_unless_a_user_chooses_another(
    variables: dict[str, str], architecture: str
) -> None:
    found, lacking = runtime(**variables).split("'not_found'")
    if platform.machine() in ("x86_64", "AMD64"):
        assert "X86_V4" not in found
        assert "X86_V4" in lacking
        assert f"'architecture': '{architecture}'" in lacking
    else:
        assert "Haswell" not in lacking
