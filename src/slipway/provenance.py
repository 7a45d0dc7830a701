"""Define the provenance of a model, which is stored in the image, in its pods and in the model registry."""

from collections.abc import Mapping
from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict, ValidationError

from slipway.errors import InputError

LABELS = {
    "bundle": "slipway.bundle",
    "data": "slipway.data",
    "commit": "org.opencontainers.image.revision",
    "created": "org.opencontainers.image.created",
    "verdict": "slipway.verdict",
}
"""The image label for each field of the provenance. The field `reason` has no label. A reason can contain an amount
such as `$822`, and Podman 5 treats `$` in a label as the start of a variable.
"""
ANNOTATIONS = {name: f"slipway/{name}" for name in (*LABELS, "reason")}
TAGS = {name: f"slipway.{name}" for name in ANNOTATIONS} | {"commit": "slipway.git_commit"}


class Provenance(BaseModel):
    """The data, code and verdict behind a bundle. Unknown values are None."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    bundle: str
    """Hash of the bundle's directory, which identifies the model."""
    data: str | None = None
    """DVC hash of the data that the model was trained on, without the suffix `.dir`."""
    commit: str | None = None
    """Git commit that the image was built from."""
    created: str | None = None
    """Time of the git commit (RFC 3339)."""
    verdict: str | None = None
    """`ship` or `first`, or a text that names the user who overruled the verdict `hold`."""
    reason: str | None = None
    """The gate's reason for the verdict, in one sentence."""

    def labels(self) -> dict[str, str]:
        """Return the labels of the image. The commit and the time have the names from the OCI image specification."""
        return self._known(LABELS)

    def annotations(self) -> dict[str, str]:
        """Return the annotations of the pods that run the image."""
        return self._known(ANNOTATIONS)

    def tags(self) -> dict[str, str]:
        """Return the tags of the model version in the model registry."""
        return self._known(TAGS)

    @classmethod
    def from_labels(cls, labels: Mapping[str, str]) -> Self:
        """Read the labels of an image. Raises pydantic's ValidationError if the label with the bundle is missing."""
        return cls.model_validate({name: labels.get(key) for name, key in LABELS.items()})

    @classmethod
    def from_annotations(cls, annotations: Mapping[str, str]) -> Self:
        """Read the annotations of pods.

        Raises pydantic's ValidationError if the annotation with the bundle is missing.
        """
        return cls.model_validate({name: annotations.get(key) for name, key in ANNOTATIONS.items()})

    def _known(self, names: Mapping[str, str]) -> dict[str, str]:
        known = self.model_dump(exclude_none=True)
        return {key: known[field] for field, key in names.items() if field in known}


def read_provenance(path: Path | None, bundle: str) -> Provenance:
    """Read the provenance file of an image. Raises InputError if the file does not name the bundle `bundle`.

    If `path` is None, return a provenance in which only the bundle is known.
    """
    if path is None:
        return Provenance(bundle=bundle)
    try:
        provenance = Provenance.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        raise InputError(f"{path} cannot be read ({str(error).splitlines()[0]}); build the image again.") from None
    if provenance.bundle != bundle:
        raise InputError(
            f"{path} is about bundle {provenance.bundle}, but the bundle is {bundle}; build the image again."
        )
    return provenance
