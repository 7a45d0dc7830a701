"""Read and write the release component of an overlay: a file with the image and the provenance of the released model.

Only `slipway promote` and `slipway rollback` write this file. People edit the other files of the overlay.
"""

import re
from dataclasses import dataclass
from io import BytesIO

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from ruamel.yaml.scalarstring import DoubleQuotedScalarString as Quoted

from slipway.errors import InputError
from slipway.provenance import Provenance

NAME = "model"
"""Placeholder for the image in the manifests of kustomize/base."""
BATCH = "-batch"
"""Suffix of the placeholder in kustomize/components/batch, and of the tag of each batch image."""
REGISTRY_VERSION = "slipway/registry-version"
"""Name of the pod annotation with the number of the registered model version."""
HEADER = b"# Written by `slipway promote` and `slipway rollback`. The next release replaces it, so do not edit it.\n"
IMAGE_NAME = re.compile(r"[a-z0-9.-]+(:[0-9]+)?(/[a-z0-9._-]+)*")
IMAGE_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
IMAGE_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


@dataclass(frozen=True)
class Image:
    """An image with its tag and digest. The digest is None only in tests that load the image into a cluster."""

    name: str
    tag: str
    digest: str | None

    def __post_init__(self) -> None:
        if not IMAGE_NAME.fullmatch(self.name):
            raise InputError(f"{self.name!r} is not an image name; write it like `ghcr.io/team/model`.")
        if not IMAGE_TAG.fullmatch(self.tag):
            raise InputError(f"{self.tag!r} is not an image tag; write it like `sha-0123456789ab`.")
        if self.digest is not None and not IMAGE_DIGEST.fullmatch(self.digest):
            raise InputError(f"{self.digest!r} is not an image digest; write `sha256:` and 64 hexadecimal digits.")


@dataclass(frozen=True)
class Deployed:
    """The release that an environment runs. `registry_version` is None if no model registry is configured.

    `batch` is the image that scores files with the same model. It is None if the release has no batch image.
    """

    image: Image
    provenance: Provenance
    registry_version: str | None
    batch: Image | None = None


def render(deployed: Deployed) -> bytes:
    """Return the content of a release component's file."""
    version = deployed.registry_version
    images = {NAME: deployed.image} | ({NAME + BATCH: deployed.batch} if deployed.batch else {})
    annotations = deployed.provenance.annotations() | ({REGISTRY_VERSION: version} if version else {})
    # Kustomize also adds the annotations to the pods. A release therefore replaces the pods even if the image stays
    # the same.
    component = {
        "apiVersion": "kustomize.config.k8s.io/v1alpha1",
        "kind": "Component",
        "images": [{"name": name, **_quoted(_replacement(image))} for name, image in images.items()],
        "commonAnnotations": _quoted(annotations),
    }
    yaml, file = YAML(), BytesIO()
    yaml.indent(mapping=2, sequence=4, offset=2)
    yaml.width = 10_000
    yaml.dump(component, file)
    return HEADER + file.getvalue()


def read(content: bytes, where: str) -> Deployed | None:
    """Parse the content of a release component's file. Return None before the first release.

    Raises InputError if the file was not written by a release. `where` is the path of the file, for the message.
    """
    try:
        component = YAML(typ="safe").load(content.decode())
        (server,) = (each for each in component["images"] if each["name"] == NAME)
        batch = [_image(each) for each in component["images"] if each["name"] == NAME + BATCH]
        if "digest" not in server:
            return None
        annotations = component["commonAnnotations"]
        return Deployed(
            _image(server),
            Provenance.from_annotations(annotations),
            annotations.get(REGISTRY_VERSION),
            *batch,
        )
    except (YAMLError, ValueError, LookupError, TypeError, AttributeError, InputError):
        raise InputError(f"{where} is not as `slipway promote` writes it; revert the commit that changed it.") from None


def _replacement(image: Image) -> dict[str, str]:
    return {"newName": image.name, "newTag": image.tag} | ({"digest": image.digest} if image.digest else {})


def _image(replacement: dict[str, str]) -> Image:
    return Image(replacement["newName"], replacement["newTag"], replacement["digest"])


def _quoted(values: dict[str, str]) -> dict[str, str]:
    """Quote every value, so that no YAML parser reads a hash or a tag as a number."""
    return {key: Quoted(value) for key, value in values.items()}
