"""Editing YAML that people edit too, so that nothing but the values changes.

To dump YAML again would indent, wrap and quote anew what people wrote. So ruamel.yaml only says where things stand.
Each edit is made twice, in the tree of what is read and in the text; the new text has to be read as that very tree.
"""

import json
import re
from dataclasses import dataclass, field
from typing import Self

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import (
    AliasEvent,
    CollectionEndEvent,
    CollectionStartEvent,
    DocumentStartEvent,
    MappingStartEvent,
    NodeEvent,
    ScalarEvent,
)
from ruamel.yaml.nodes import ScalarNode

from slipway.errors import InputError

LIMIT = 100_000
"""How many bytes a file may have: a few seconds of reading, however they are arranged."""
DEPTH = 100
"""How deeply lists and mappings may be nested."""

Path = tuple[str | int, ...]
"""The keys, and the indices in lists, that lead to a value."""

TEXT, NULL, MERGE = (f"tag:yaml.org,2002:{name}" for name in ("str", "null", "merge"))

QUOTED = '"'
PROPERTIES = re.compile(r"(?:[&!][^\s,\[\]{}]*|#.*|\s)*")
"""What can stand before a value: an anchor, a tag, comments."""
REST_OF_LINE = re.compile(r"[^\r\n]*")
PLAIN = re.compile(r"(?!(?:true|false|yes|no|on|off|null|y|n)\Z)[a-z](?:[a-z0-9._/:@+-]*[a-z0-9._/@+-])?", re.I)
"""What every reader takes for text without quotes. A letter comes first, as they differ in what else is a number."""


class Document:
    """A file of YAML whose texts can be read and set.

    Each method raises InputError if the file, whose path is `where`, is broken, does not hold what is expected, or
    cannot be edited safely. A document in which an edit has failed is of no further use.

    A text that is an alias gives way to the one that is set. Other aliases are followed to where their anchor is.
    """

    def __init__(self, content: bytes, where: str) -> None:
        if len(content) > LIMIT:
            raise InputError(f"{where} has more than {LIMIT} bytes; restore it with `git checkout`.")
        try:
            self._text = content.decode()
        except UnicodeDecodeError as error:
            raise InputError(f"{where}: byte {error.start} is not UTF-8; save the file as UTF-8.") from None
        self._where = where
        self._root = _Reader(self._text, where).root()

    @property
    def content(self) -> bytes:
        """The file as it is now."""
        return self._text.encode()

    def count(self, path: Path) -> int:
        """How many entries the list at a path has: none where the key is missing or says nothing."""
        entries = self._list(path)
        return len(entries.children) if entries else 0

    def text(self, path: Path, default: str = "") -> str:
        """The text at a path: the default where the key is missing or says nothing."""
        node = self._value(path)
        said = node.says(default) if node else default
        if said is None:
            raise self._not_text(path)
        return said

    def set_text(self, path: Path, text: str, default: str = "") -> None:
        """Set the text at a path in the style of the present one; a new key goes behind the others of its mapping.

        Nothing changes where `text` returns this already.
        """
        node = self._value(path)
        if node and node.kind != "scalar":
            raise self._not_text(path)
        if text != (node.says(default) if node else default):
            self._put(path, _Node("scalar", TEXT, text))

    def append(self, path: Path, key: str, text: str) -> None:
        """Add an entry with one key to the list at a path.

        Where the key is missing or says nothing, a list in brackets begins.
        """
        if self._list(path) is None:
            self._put(path, _Node("list"))
        if entries := self._list(path):
            entry = _Node("mapping", children=[_Node("scalar", TEXT, key), _Node("scalar", TEXT, text)])
            pair = f"{key}: {_written(text, '')}"
            self._add(path, entries, [entry], f"{{{pair}}}" if entries.style else f"- {pair}")

    def line(self, path: Path) -> str:
        """Where a value stands, to begin a message with."""
        return _line(self._where, self._text, (self._at(path) or self._root).start)

    # What is read.

    def _at(self, path: Path) -> "_Node | None":
        node = self._root
        for step in path:
            slot = node.slot(step)
            if slot is None:
                return None
            node = node.children[slot].meant
        return node

    def _mapping(self, path: Path) -> "_Node":
        node, name = self._at(path), _name(path)
        if node is None:
            raise InputError(f"{self._where} has no `{name}`; restore it with `git checkout {self._where}`.")
        if node.kind != "mapping":
            raise InputError(f"{self.line(path)}: `{name}` has no keys; restore it with `git checkout {self._where}`.")
        return node

    def _value(self, path: Path) -> "_Node | None":
        """What a key says, or an entry of a list; its mapping, or the entry, has to be there."""
        node = self._at(path)
        if isinstance(path[-1], str):
            self._mapping(path[:-1])
        elif node is None:
            raise InputError(f"{self._where} has no `{_name(path)}`; restore it with `git checkout {self._where}`.")
        return node

    def _list(self, path: Path) -> "_Node | None":
        node = self._value(path)
        if node is None or node.tag == NULL:
            return None
        if node.kind != "list":
            raise InputError(f"{self.line(path)}: `{_name(path)}` is not a list; write its entries as `- KEY: VALUE`.")
        return node

    def _not_text(self, path: Path) -> InputError:
        return InputError(f"{self.line(path)}: what `{path[-1]}` says is not text to YAML; put it in quotes.")

    # What is changed.

    def _put(self, path: Path, new: "_Node") -> None:
        """Let a key, or an entry of a list, say a text or an empty list."""
        mapping, key = self._at(path[:-1]) or self._mapping(path[:-1]), str(path[-1])
        slot = mapping.slot(path[-1])
        if slot is None:
            return self._add(path, mapping, [_Node("scalar", TEXT, key), new], f"{key}: {new.written(QUOTED)}")
        old = mapping.children[slot]
        start = self._behind_properties(old)
        new.anchor = None if old.target else old.anchor
        mapping.children[slot] = new
        space = "" if start < old.end or self._text[start - 1].isspace() else " "
        return self._splice(path, start, old.end, space + new.written(old.style if old.tag == TEXT else QUOTED))

    def _add(self, path: Path, collection: "_Node", new: list["_Node"], text: str) -> None:
        """Write children of a list or a mapping behind those that it has."""
        last = collection.children[-1].end if collection.children else 0
        collection.children.extend(new)
        if collection.style:
            place, gap = (last, ", ") if last else (collection.end - 1, "")
        else:
            place = _behind(REST_OF_LINE, self._text, len(self._text[:last].rstrip()))
            gap = ("\r\n" if "\r\n" in self._text else "\n") + " " * self._indent(collection)
        self._splice(path, place, place, gap + text)

    def _indent(self, block: "_Node") -> int:
        start = self._behind_properties(block) if block.kind == "list" else block.children[0].start
        return len(self._text[:start].rpartition("\n")[2].removeprefix("\ufeff"))

    def _behind_properties(self, node: "_Node") -> int:
        return _behind(PROPERTIES, self._text, node.start, node.end)

    def _splice(self, path: Path, start: int, end: int, new: str) -> None:
        """Write something else from `start` to `end`, if the text is then read as the tree that has been changed."""
        text = self._text[:start] + new + self._text[end:]
        try:
            # What takes several lines can have comments inside.
            proven = "\n" not in self._text[start:end] and self._root == (root := _Reader(text, self._where).root())
        except InputError:
            proven = False
        if not proven:
            raise InputError(
                f"{self._where}: `{_name(path)}` cannot be edited safely; write it in a simpler way, or set it by hand."
            )
        self._text, self._root = text, root


@dataclass
class _Node:
    """A value, and where it stands in the text. Those are equal that are read the same; an alias is a node, too."""

    kind: str
    """One of scalar, list, mapping, alias."""
    tag: str = ""
    text: str = ""
    anchor: str | None = None
    children: list[Self] = field(default_factory=list)
    """The entries of a list; the keys of a mapping, each before its value."""
    style: str = field(default="", compare=False)
    """The quotes around a scalar, `[` for a list or a mapping in brackets; empty where there are none."""
    start: int = field(default=0, compare=False)
    end: int = field(default=0, compare=False)
    target: Self | None = field(default=None, compare=False, repr=False)
    """What an alias stands for."""

    @property
    def meant(self) -> "_Node":
        return self.target or self

    def keys(self) -> list[str | None]:
        """The keys of a mapping; None stands for one that is no scalar."""
        keys = [key.meant for key in self.children[::2]] if self.kind == "mapping" else []
        return [key.text if key.kind == "scalar" else None for key in keys]

    def slot(self, step: str | int) -> int | None:
        """Which of the children is the value of a key, or has an index."""
        if isinstance(step, int):
            return step if self.kind == "list" and step < len(self.children) else None
        keys = self.keys()
        return 2 * keys.index(step) + 1 if step in keys else None

    def says(self, default: str) -> str | None:
        """Its text; the default where that is empty or null, None where it is none."""
        if self.tag == NULL:
            return default
        return self.text or default if self.tag == TEXT else None

    def written(self, style: str) -> str:
        return _written(self.text, style) if self.kind == "scalar" else "[]"


class _Reader:
    """What ruamel.yaml finds in a text, as a tree of nodes that know their places."""

    def __init__(self, text: str, where: str) -> None:
        self._text, self._where = text, where
        self._yaml = YAML(typ="safe", pure=True)
        self._anchors: dict[str, _Node] = {}

    def root(self) -> _Node:
        try:
            documents = self._documents()
        except MarkedYAMLError as error:
            problem = " ".join(str(error.problem or error.context).split())
            place = error.problem_mark.index if error.problem_mark else 0
            raise self._error(place, f"not one document of YAML ({problem}); correct it.") from None
        except YAMLError as error:
            raise InputError(f"{self._where}: not YAML ({str(error).splitlines()[0]}); correct it.") from None
        if not documents or documents[0].kind != "mapping":
            raise InputError(f"{self._where} does not consist of keys and values; restore it with `git checkout`.")
        return documents[0]

    def _error(self, place: int, sentence: str) -> InputError:
        return InputError(f"{_line(self._where, self._text, place)}: {sentence}")

    def _documents(self) -> list[_Node]:
        open_nodes = [_Node("list")]
        for event in self._yaml.parse(self._text):
            parent, place = open_nodes[-1], event.start_mark.index
            if isinstance(event, CollectionEndEvent):
                self._close(open_nodes.pop(), event.end_mark.index)
            elif isinstance(event, DocumentStartEvent) and parent.children:
                raise self._error(place, "not one document of YAML (another one begins); remove it.")
            elif isinstance(event, NodeEvent):
                node = self._node(event)
                if node.start == node.end and parent.kind == "mapping" and len(parent.children) % 2:
                    # A key without a value ends with the colon; ruamel.yaml may say where the next one is.
                    key = parent.children[-1]
                    node.start = node.end = self._text.find(":", key.end, node.start) + 1 or key.end
                parent.children.append(node)
                if node.kind in ("list", "mapping"):
                    open_nodes.append(node)
                if len(open_nodes) > DEPTH:
                    raise self._error(place, "nested too deeply; restore the file with `git checkout`.")
        return open_nodes[0].children

    def _node(self, event: NodeEvent) -> _Node:
        place = {"start": event.start_mark.index, "end": event.end_mark.index}
        if isinstance(event, AliasEvent):
            if event.anchor not in self._anchors:
                raise self._error(place["start"], f"nothing has the anchor `&{event.anchor}`; correct the alias.")
            return _Node("alias", anchor=event.anchor, target=self._anchors[event.anchor], **place)
        if isinstance(event, ScalarEvent):
            tag = event.tag or self._yaml.resolver.resolve(ScalarNode, event.value, event.implicit)
            if tag == MERGE:
                raise self._error(place["start"], "merge keys (`<<`) are not supported; write out what they merge.")
            node = _Node("scalar", str(tag), event.value, event.anchor, style=event.style or "", **place)
        elif isinstance(event, CollectionStartEvent):
            kind = "mapping" if isinstance(event, MappingStartEvent) else "list"
            node = _Node(kind, event.tag or "", anchor=event.anchor, style="[" if event.flow_style else "", **place)
        if event.anchor:
            self._anchors[event.anchor] = node
        return node

    def _close(self, node: _Node, end: int) -> None:
        # Only brackets have an end of their own.
        node.end = end if node.style else node.children[-1].end
        known: set[str] = set()
        for number, key in enumerate(node.keys()):
            if key in known:
                raise self._error(node.children[2 * number].start, f"`{key}` stands there twice; remove one of them.")
            known |= {key} if key is not None else set()


def _written(text: str, style: str) -> str:
    if style == "'":
        return "'" + text.replace("'", "''") + "'"
    return text if not style and PLAIN.fullmatch(text) else json.dumps(text, ensure_ascii=False)


def _behind(pattern: re.Pattern[str], text: str, start: int, end: int | None = None) -> int:
    """Where a part of the text ends that may be empty."""
    match = pattern.match(text, start, len(text) if end is None else end)
    return match.end() if match else start


def _line(where: str, text: str, place: int) -> str:
    return f"{where}, line {text.count(chr(10), 0, place) + 1}"


def _name(path: Path) -> str:
    return ".".join(map(str, path))
