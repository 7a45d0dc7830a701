"""Check that the text people read is plain English: Markdown, docstrings, helps, messages, comments, names of tests.

    python tests/slipway/language.py                  check all files, and exit 1 on a finding
    python tests/slipway/language.py --list [PATH…]   print every finding below PATH
    python tests/slipway/language.py --count          print the number of findings by folder and rule

The rules are in language.toml. Paths are relative to the repository.
"""

import ast
import io
import re
import subprocess
import sys
import tokenize
import tomllib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

UNREAD = ("requirements/", "sample/", "data/", "LICENSE", "NOTICE", "dvc.lock", "tests/slipway/language.toml")
CODE = "CODE"
"""Replaces inline code and values, which no rule reads."""
BETWEEN_SENTENCES = re.compile(r"(?<=[.!?])(?<!e\.g\.)(?<!i\.e\.)[\"')*]*\s+(?=[\"'(*]*[A-Z])")
COMMENTED = {".yaml", ".yml", ".toml", ".sh", "", ".cfg"}


@dataclass(frozen=True)
class Text:
    """A piece of text that stands on its own, such as a paragraph, and the line where it starts."""

    kind: str
    line: int
    words: str


@dataclass(frozen=True)
class Rule:
    """A construction to avoid. The fields are explained in language.toml."""

    name: str
    pattern: re.Pattern[str]
    instead: str
    at: str
    kinds: frozenset[str]
    unless: re.Pattern[str] | None
    allowed: int
    bad: tuple[str, ...]
    good: tuple[str, ...]

    def matches(self, text: Text) -> Iterator[tuple[int, str]]:
        """Yield the line and the words of each match in a text."""
        if self.kinds and text.kind not in self.kinds:
            return
        for start, sentence in sentences(text.words.replace("\n", " ")):
            if (self.at == "text" and start) or (self.unless and self.unless.search(sentence)):
                continue
            found = self.pattern.finditer(sentence) if self.at == "anywhere" else (self.pattern.match(sentence),)
            for match in found:
                if match:
                    yield text.line + text.words.count("\n", 0, start + match.start()), match[0].strip()


@dataclass(frozen=True)
class Finding:
    """A match of a rule in a file."""

    path: str
    line: int
    words: str
    rule: Rule

    def __str__(self) -> str:
        words = f"{self.words[:37]}..." if len(self.words) > 40 else self.words
        return f"{self.path}:{self.line}: {self.rule.name}: '{words}': {self.rule.instead}"


def rules() -> list[Rule]:
    """Read the rules."""
    return [
        Rule(
            each["name"],
            re.compile(each["pattern"], re.IGNORECASE),
            each["instead"],
            each.get("at", "anywhere"),
            frozenset(each.get("in", ())),
            re.compile(each["unless"]) if "unless" in each else None,
            each.get("allowed", 0),
            tuple(each["bad"]),
            tuple(each["good"]),
        )
        for each in tomllib.loads(Path(__file__).with_name("language.toml").read_text())["rule"]
    ]


def sentences(words: str) -> Iterator[tuple[int, str]]:
    """Yield each sentence with its offset."""
    start = 0
    for gap in BETWEEN_SENTENCES.finditer(words):
        yield start, words[start : gap.start()]
        start = gap.end()
    yield start, words[start:]


def findings(path: str, texts: list[Text], known: list[Rule]) -> list[Finding]:
    """Return the findings of a file, without those that a rule allows per 100 sentences."""
    total = sum(1 for text in texts for _ in sentences(text.words))
    found = []
    for rule in known:
        matches = [match for text in texts for match in rule.matches(text)]
        if not rule.allowed or len(matches) > max(1, rule.allowed * total / 100):
            found += [Finding(path, *match, rule) for match in matches]
    return sorted(found, key=lambda each: each.line)


def texts_of(path: str, content: str) -> list[Text]:
    """Return the texts of a file by its suffix, and nothing for an unknown one."""
    suffix = Path(path).suffix
    if suffix == ".md":
        found = markdown(content)
    elif suffix == ".py":
        found = python(content, path)
    elif suffix in (".html", ".svg"):
        found = marked_up(content)
    elif suffix in COMMENTED:
        found = hash_comments(content)
    else:
        return []
    return [Text(each.kind, each.line, plain(each.words)) for each in found]


def plain(words: str) -> str:
    """Replace inline code, links and values by what a reader sees of them."""
    words = re.sub(r"(`+)[^`]+\1", lambda code: CODE + "\n" * code[0].count("\n"), words)
    words = re.sub(r"\]\([^)]*\)", "]", words)
    words = re.sub(r"https?://\S+", CODE, words)
    return re.sub(r"[*\[\]]", "", words)


def markdown(content: str) -> list[Text]:
    """Return headings, and paragraphs, list items and table cells as prose."""
    found: list[Text] = []
    block: list[str] = []
    fenced = False
    for number, line in enumerate([*content.splitlines(), ""], start=1):
        row = re.sub(r"^ *(> ?)*", "", line)
        if row.startswith("```"):
            fenced = not fenced
        apart = not row or row.startswith(("#", "|", "```"))
        if block and (fenced or apart or re.match(r"[-*+] |\d+\. ", row)):
            found.append(Text("prose", number - len(block), "\n".join(block)))
            block = []
        if fenced:
            continue
        if row.startswith("#"):
            found.append(Text("heading", number, row.lstrip("# ")))
        elif row.startswith("|"):
            cells = re.split(r"(?<!\\)\|", row.strip("| "))
            found += [Text("prose", number, cell.strip()) for cell in cells if re.search(r"\w", cell)]
        elif not apart:
            block.append(re.sub(r"^([-*+]|\d+\.) +", "", row))
    return found


def marked_up(content: str) -> list[Text]:
    """Return the text between the tags of a page or a picture."""
    content = re.sub(
        r"<(script|style)\b.*?</\1>|<!--.*?-->|\{#.*?#\}|\{%.*?%\}",
        lambda gone: "\n" * gone[0].count("\n"),
        content,
        flags=re.DOTALL,
    )
    content = re.sub(r"\{\{.*?\}\}", CODE, content)
    found = []
    for match in re.finditer(r">([^<>]*\w[^<>]*)<", content):
        lead = len(match[1]) - len(match[1].lstrip())
        found.append(Text("prose", content.count("\n", 0, match.start(1) + lead) + 1, match[1].strip()))
    return found


def hash_comments(content: str) -> list[Text]:
    """Return the comments after `#`, and the names and descriptions that GitHub shows."""
    found = commented(
        (number, match.start(1), match[1])
        for number, line in enumerate(content.splitlines(), start=1)
        if (match := re.search(r"(?:^|\s)#+(?!!)\s(.*)", line))
    )
    for match in re.finditer(r"^[\s-]*(?:name|description): +(?![\"']?\$)(.+?)(?: #.*)?$", content, re.MULTILINE):
        found.append(Text("text", content.count("\n", 0, match.start(1)) + 1, match[1].strip("\"'")))
    return found


def commented(lines: Iterator[tuple[int, int, str]]) -> list[Text]:
    """Join comments on following lines of the same column into one text."""
    found: list[Text] = []
    last = (0, 0)
    for number, column, words in lines:
        if last == (number - 1, column):
            found[-1] = Text("comment", found[-1].line, f"{found[-1].words}\n{words}")
        else:
            found.append(Text("comment", number, words))
        last = (number, column)
    return found


def python(content: str, path: str) -> list[Text]:
    """Return docstrings, helps, messages, other sentences outside of tests, comments, and names of tests."""
    tokens = tokenize.generate_tokens(io.StringIO(content).readline)
    found = commented(
        (each.start[0], each.start[1], each.string.lstrip("#: "))
        for each in tokens
        if each.type == tokenize.COMMENT and not re.match(r"#\s*(noqa|type:|!)", each.string)
    )
    tree = ast.parse(content)
    taken: set[ast.AST] = set()
    for node in ast.walk(tree):
        found += described(node, taken)
    if path.startswith(("src/", "demo/")):
        found += [
            Text("text", line, words)
            for line, words in strings(tree, taken)
            if len(re.findall(r"\b[A-Za-z][a-z]*\b", words)) > 3 and not re.search(r"\\[\w.]|\(\?", words)
        ]
    return found


def described(node: ast.AST, taken: set[ast.AST]) -> list[Text]:
    """Return the texts that a node brings, and mark their strings as taken."""
    found: list[Text] = []
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        found += documented(node, node.body, taken)
        if node.name.startswith("test_"):
            found.append(Text("name", node.lineno, node.name.removeprefix("test_").replace("_", " ")))
    elif isinstance(node, ast.Module | ast.ClassDef):
        found += documented(node, node.body, taken)
    elif isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
        found += [Text("message", *each) for part in node.exc.args for each in strings(part, taken)]
    elif isinstance(node, ast.Call):
        for keyword in node.keywords:
            if keyword.arg in ("help", "description", "epilog"):
                found += [Text("help", *each) for each in strings(keyword.value, taken)]
    return found


def documented(node: ast.AST, body: list[ast.stmt], taken: set[ast.AST]) -> list[Text]:
    """Return the paragraphs of the docstrings in a body, of which the first of a function is its summary."""
    found = []
    for position, statement in enumerate(body):
        if not (isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)):
            continue
        taken.add(statement.value)
        offset = 0
        for paragraph in re.split(r"(\n[ \t]*\n)", str(statement.value.value)):
            line = statement.lineno + offset
            offset += paragraph.count("\n")
            if paragraph.strip():
                summary = position == 0 and line == statement.lineno and acts(node)
                found.append(Text("summary" if summary else "docstring", line, re.sub(r"\n +", "\n", paragraph)))
    return found


def acts(node: ast.AST) -> bool:
    """Return whether a docstring has to start with a verb: not for a test, a property or a fixture."""
    if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) or node.name.startswith("test_"):
        return False
    decorators = " ".join(ast.unparse(each) for each in node.decorator_list)
    return not re.search(r"property|fixture|\.setter|hookimpl", decorators)


def strings(root: ast.AST, taken: set[ast.AST]) -> list[tuple[int, str]]:
    """Return the strings below a node that are not taken yet, with values as CODE, and take them."""
    found = []
    for node in ast.walk(root):
        if node in taken:
            continue
        if isinstance(node, ast.JoinedStr):
            parts = [str(each.value) if isinstance(each, ast.Constant) else CODE for each in node.values]
            taken.update(each for each in node.values if isinstance(each, ast.Constant))
            found.append((node.lineno, "".join(parts)))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            found.append((node.lineno, node.value))
        else:
            continue
        taken.add(node)
    return found


def tracked(root: Path) -> list[str]:
    """Return the files of the repository with text that people read."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=root,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    return sorted(
        name for name in listed.split("\0") if name and not name.startswith(UNREAD) and (root / name).is_file()
    )


def check(root: Path, below: tuple[str, ...] = ("",)) -> list[Finding]:
    """Return the findings in all files that start with one of the paths `below`."""
    known = rules()
    found = []
    for name in tracked(root):
        if name.startswith(below):
            try:
                found += findings(name, texts_of(name, (root / name).read_text()), known)
            except UnicodeDecodeError:
                continue  # not a text
    return found


def folder(path: str) -> str:
    """Return the first two folders of a path, or three below src/slipway."""
    parts = Path(path).parent.parts
    return "/".join(parts[: 3 if path.startswith("src/slipway") else 2]) or "."


def counted(found: list[Finding]) -> str:
    """Return the number of findings by folder, then by rule."""
    folders = Counter(folder(each.path) for each in found)
    kinds = Counter(each.rule.name for each in found)
    lines = [f"{count:6} {name}" for name, count in [*sorted(folders.items()), *kinds.most_common()]]
    return "\n".join([*lines, f"{len(found):6} in all"])


def main(arguments: list[str]) -> int:
    """Check, list or count, and return the exit code."""
    top = subprocess.run(["git", "rev-parse", "--show-toplevel"], capture_output=True, text=True, check=True)
    root = Path(top.stdout.strip())
    if "--count" in arguments:
        print(counted(check(root)))
        return 0
    if "--list" in arguments:
        paths = tuple(each.removeprefix("./") for each in arguments if each != "--list")
        print(*check(root, paths or ("",)), sep="\n")
        return 0
    found = check(root)
    print(*found, sep="\n", end="\n" if found else "")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
