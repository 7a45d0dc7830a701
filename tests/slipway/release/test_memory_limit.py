"""The memory of a server is compared with the limit in the manifests."""

from pathlib import Path

import pytest

from slipway.errors import InputError
from slipway.release.memory_limit import MANIFEST, compared, memory_limit
from tests.slipway.conftest import ROOT

MIB = 2**20


def test_the_limit_of_the_manifest_is_read() -> None:
    assert memory_limit(ROOT / MANIFEST) == 256 * MIB


@pytest.mark.parametrize(("written", "size"), [("256Mi", 256 * MIB), ("1.5Gi", 1536 * MIB), ("2G", 2 * 10**9)])
def test_a_limit_may_have_any_unit(tmp_path: Path, written: str, size: int) -> None:
    changed = tmp_path / "deployment.yaml"
    changed.write_text((ROOT / MANIFEST).read_text().replace("memory: 256Mi # 107", f"memory: {written} # 107"))
    assert memory_limit(changed) == size


def test_a_limit_that_is_not_a_size_fails_with_one_sentence(tmp_path: Path) -> None:
    changed = tmp_path / "deployment.yaml"
    changed.write_text((ROOT / MANIFEST).read_text().replace("memory: 256Mi # 107", "memory: much # 107"))
    with pytest.raises(InputError, match="'much' is not a size"):
        memory_limit(changed)


def test_an_image_outside_of_a_repository_has_no_limit(tmp_path: Path) -> None:
    assert memory_limit(tmp_path / "none.yaml") is None
    assert compared(100 * MIB, 1000, 0.1, None) == "1,000 records in one request: 0.1 s, peak memory 100 MiB"


def test_memory_with_bodies_up_to_the_limit_fits() -> None:
    assert compared(192 * MIB, 1000, 0.1, 256 * MIB).endswith("this fits the limit of 256 MiB")


def test_memory_above_the_limit_is_a_warning_with_a_limit_that_fits() -> None:
    warning = compared(193 * MIB, 1000, 3, 256 * MIB)
    assert warning.startswith("WARNING: 1,000 records in one request: 3.0 s, peak memory 193 MiB;")
    assert "exceeds the limit of 256 MiB; set 384Mi in kustomize/base/deployment.yaml" in warning
