"""The provenance of a model is the same in its labels, annotations and tags."""

from slipway.provenance import Provenance

SHIPPED = Provenance(bundle="0123", data="4567", verdict="ship", reason="mean absolute error falls by $1,235")


def test_labels_lack_the_reason_because_podman_expands_a_dollar_sign() -> None:
    labels = SHIPPED.labels()
    assert labels == {"slipway.bundle": "0123", "slipway.data": "4567", "slipway.verdict": "ship"}
    assert Provenance.from_labels(labels) == SHIPPED.model_copy(update={"reason": None})


def test_annotations_contain_all_that_is_known() -> None:
    assert Provenance.from_annotations(SHIPPED.annotations()) == SHIPPED
    assert SHIPPED.annotations()["slipway/reason"] == SHIPPED.tags()["slipway.reason"] == SHIPPED.reason
