"""The default target of a rollback, on histories of one letter per release, oldest first."""

from datetime import UTC, datetime

import pytest

from slipway.errors import CheckFailed
from slipway.provenance import Provenance
from slipway.release.component import Deployed, Image
from slipway.release.history import Release, previous, refuse_withdrawn, rollbacks
from tests.slipway.release.conftest import image


def history(letters: str) -> list[Release]:
    """Return releases of bundles, newest first.

    Lower case is another server with the same bundle. After a dot, nothing was live before the next release. A plus
    adds a batch image to the release before it.
    """
    shown = [(letter, letters[:number]) for number, letter in enumerate(letters) if letter != "."]
    releases = [
        Release(
            commit=f"{number}{letter}",
            before=None,
            when=datetime.now(UTC),
            subject="",
            deployed=_deployed(earlier.rstrip("+")[-1], image(0)) if letter == "+" else _deployed(letter),
            is_first=not earlier or earlier.endswith("."),
        )
        for number, (letter, earlier) in enumerate(shown)
    ]
    return releases[::-1]


def _deployed(letter: str, batch: Image | None = None) -> Deployed:
    return Deployed(image(ord(letter)), Provenance(bundle=letter.upper(), commit=letter), None, batch)


@pytest.mark.parametrize(
    ("letters", "target"),
    [
        ("A", None),
        ("AB", "0A"),
        ("ABC", "1B"),
        ("ABA", None),  # B was rolled back
        ("ZABA", "0Z"),
        ("ABAB", "2A"),
        ("ZABAB", "3A"),
        ("ABABA", None),
        ("ABCB", "0A"),
        ("ABCBA", None),
        ("ABAC", "2A"),
        ("ABCAC", "3A"),
        ("ABCAD", "3A"),
        ("AABB", "1A"),  # a state that was damaged in between
        ("AB+", "0A"),  # not the same image without its batch image
        ("A+B+", "1+"),
        ("A+", None),
        ("A.B", None),  # a person removed A before B was released
        ("ZA.B", None),
        ("A.BC", "1B"),
    ],
)
def test_rollback_goes_to_the_newest_release_that_was_not_rolled_back(letters: str, target: str | None) -> None:
    releases = history(letters)
    number = previous(releases)
    assert (None if number is None else releases[number].commit) == target


@pytest.mark.parametrize(
    ("letters", "back"),
    [("ABC", ""), ("ABA", "2A"), ("ABAB", "2A"), ("ABCBA", "4A 3B"), ("ABCA", "3A")],
)
def test_rollbacks_are_the_releases_of_an_earlier_state_that_still_stood(letters: str, back: str) -> None:
    releases = history(letters)
    assert [releases[number].commit for number in sorted(rollbacks(releases))] == back.split()


@pytest.mark.parametrize(
    ("letters", "bundle", "by"),
    [
        ("AB", "B", None),
        ("ABA", "B", "2A"),
        ("ABA", "A", None),
        ("ABAB", "B", None),  # B is live again
        ("ABAB", "A", None),  # A was replaced by B, and not rolled back
        ("ABAC", "B", "2A"),
        ("ZABZ", "A", "3Z"),  # the rollback ended both A and B
        ("ZABZ", "B", "3Z"),
        ("ZABZC", "A", "3Z"),
        ("AB+A", "B", "3A"),
        ("AB+", "B", None),
        ("AaA", "A", "2A"),  # the server of the image a was rolled back
        ("AaAb", "A", "2A"),
        ("AabA", "A", "3A"),
    ],
)
def test_bundle_is_withdrawn_if_a_rollback_ended_its_last_release(letters: str, bundle: str, by: str | None) -> None:
    def is_same_server(deployed: Deployed) -> bool:
        return deployed.provenance.commit == "a"

    if by is None:
        refuse_withdrawn(history(letters), bundle, is_same_server)
    else:
        with pytest.raises(CheckFailed, match=rf"^Bundle {bundle} was rolled back by {by}; merge a change"):
            refuse_withdrawn(history(letters), bundle, is_same_server)
