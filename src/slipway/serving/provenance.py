"""Where the live model came from: written into the image when it is built, told by `/version` and the page."""

from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from slipway.errors import InputError


class Lineage(BaseModel):
    """The commits and hashes behind a bundle. None where a bundle is served that no release made."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    bundle: str
    """The hash of the bundle's folder: the identity of the model."""
    data: str | None = None
    """The hash of the data that it was trained on, as in data.dvc."""
    commit: str | None = None
    """The git commit that the image was built from."""
    created: str | None = None
    """When that commit was made (RFC 3339)."""


def read_lineage(path: Path | None, bundle: str) -> Lineage:
    """The lineage in a file, or of the bundle alone; raises InputError if the file speaks of another bundle."""
    if path is None:
        return Lineage(bundle=bundle)
    try:
        lineage = Lineage.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        raise InputError(f"{path} cannot be read ({str(error).splitlines()[0]}); build the image again.") from None
    if lineage.bundle != bundle:
        raise InputError(
            f"{path} speaks of bundle {lineage.bundle}, and the bundle is {bundle}; build the image again."
        )
    return lineage
