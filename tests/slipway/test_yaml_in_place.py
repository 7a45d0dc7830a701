"""Entries of lists; keys, comments and whole overlays are tried in tests/release/test_overlay.py."""

import pytest

from slipway.errors import InputError
from slipway.yaml_in_place import Document


def edited(text: str, *path: str | int) -> str:
    document = Document(text.encode(), "a.yaml")
    document.set_text(path, "new.example.com")
    return document.content.decode()


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("hosts:\n  - old # ours\n  - 'other'\n", "hosts:\n  - new.example.com # ours\n  - 'other'\n"),
        ("hosts: ['old', other]\n", "hosts: ['new.example.com', other]\n"),
        ("hosts:\n- &a old\n- *a\n", "hosts:\n- &a new.example.com\n- *a\n"),
        ("hosts: [null]\n", 'hosts: ["new.example.com"]\n'),
    ],
)
def test_an_entry_of_a_list_is_set_where_it_stands(text: str, wanted: str) -> None:
    assert edited(text, "hosts", 0) == wanted


@pytest.mark.parametrize("text", ["hosts: []\n", "hosts: {a: b}\n", "other: [a]\n", "hosts: [[a]]\n", "hosts: [1]\n"])
def test_an_entry_that_is_no_text_is_not(text: str) -> None:
    with pytest.raises(InputError, match=r"a\.yaml.*(has no `hosts\.0`|is not text)"):
        Document(text.encode(), "a.yaml").text(("hosts", 0))
