"""Convert scikit-learn's CountVectorizer, TfidfVectorizer and TfidfTransformer to ONNX nodes.

The ONNX operator for lower case, StringNormalizer, needs a locale of the operating system, which a minimal image does
not have. The graph therefore cuts a text at each upper-case letter, looks up the letter's lower-case form, and joins
the pieces again. ONNX Runtime's operator Tokenizer cuts the texts with RE2 regular expressions.
"""

import re
import sys
from collections.abc import Sequence
from functools import cache
from typing import Any

import onnx
from sklearn.feature_extraction.text import CountVectorizer, TfidfTransformer

from slipway.pipeline.onnx_graph import ML, RUNTIME, GraphBuilder
from slipway.pipeline.trees import NotConvertible

WORD = r"\pL\pN_"
"""Python's `\\w` in RE2: letters, numbers and the underscore."""
WORDS = re.compile(r"(?:\(\?u\))?(?:\\b)?(?P<words>(?:\\w)+)(?P<more>\+|\{(?P<least>\d+),\})?(?:\\b)?")
ONE_CLASS = re.compile(r"\[[A-Za-z0-9_-]+\](?:\+|\{\d+,\})")


def count_tokens(fitted: CountVectorizer, graph: GraphBuilder, texts: str) -> str:
    """Add nodes that count the tokens of `texts` [rows, 1]. Return the counts, float32 [rows, vocabulary].

    Raises NotConvertible if an option of the vectorizer has no equivalent.
    """
    _require_convertible(fitted)
    flat = graph.add("Reshape", texts, graph.constant([-1], "int64"))
    if fitted.lowercase:
        flat = _lower(graph, flat)
    if fitted.analyzer == "word":
        tokens = _tokenize(graph, flat, _as_re2(fitted.token_pattern))
        if fitted.ngram_range[1] > 1 and (stop_words := fitted.get_stop_words()):
            tokens = _drop(graph, tokens, sorted(stop_words))
    else:
        tokens = _characters(graph, flat, in_words=fitted.analyzer == "char_wb")
    counts = graph.add("TfIdfVectorizer", tokens, **_vocabulary(fitted))
    counts = graph.add("Reshape", counts, graph.constant([-1, len(fitted.vocabulary_)], "int64"))
    return graph.add("Min", counts, graph.constant(1.0, "float32")) if fitted.binary else counts


def weigh(fitted: TfidfTransformer, graph: GraphBuilder, counts: str) -> str:
    """Add nodes that weigh `counts`, float64 [rows, vocabulary], as TfidfTransformer does."""
    weighed = counts
    if fitted.sublinear_tf:
        present = graph.add("Greater", counts, graph.constant(0.0, "float64"))
        at_least_one = graph.add("Max", counts, graph.constant(1.0, "float64"))
        logarithm = graph.add("Add", graph.add("Log", at_least_one), graph.constant(1.0, "float64"))
        weighed = graph.add("Where", present, logarithm, counts)
    if fitted.use_idf:
        weighed = graph.add("Mul", weighed, graph.constant(fitted.idf_, "float64"))
    if fitted.norm is None:
        return weighed
    operator = {"l1": "ReduceL1", "l2": "ReduceL2"}[fitted.norm]
    norm = graph.add(operator, weighed, graph.constant([1], "int64"), keepdims=1)
    empty = graph.add("Equal", norm, graph.constant(0.0, "float64"))
    return graph.add("Div", weighed, graph.add("Where", empty, graph.constant(1.0, "float64"), norm))


def _require_convertible(fitted: CountVectorizer) -> None:
    name = type(fitted).__name__
    own = {"analyzer": callable(fitted.analyzer), "preprocessor": fitted.preprocessor, "tokenizer": fitted.tokenizer}
    for option, used in {**own, "strip_accents": fitted.strip_accents}.items():
        if used:
            raise NotConvertible(f"{name} with the option `{option}`")
    if fitted.analyzer == "char_wb" and fitted.ngram_range[0] == 1:
        raise NotConvertible(f"{name} with `char_wb` and single characters; start `ngram_range` at 2")


def _as_re2(pattern: str) -> str:
    """Translate the regular expression of a token from Python to RE2.

    The classes of word characters and blank characters are replaced, because in RE2 they contain only ASCII characters.
    """
    found = WORDS.fullmatch(pattern)
    if found and (found["more"] or r"\b" in pattern):
        written = len(found["words"]) // 2
        least = written - 1 + int(found["least"]) if found["least"] else written
        if found["more"]:
            return f"[{WORD}]{{{least},}}"
    if ONE_CLASS.fullmatch(pattern):
        return pattern
    if pattern == r"\S+":
        return f"[^{_blank()}]+"
    raise NotConvertible(rf"the `token_pattern` {pattern!r}; use (?u)\b\w+\b, \S+ or one class of characters")


@cache
def _lower_case() -> dict[str, str]:
    """Return the lower-case form of each character that has one."""
    letters = (chr(code) for code in range(sys.maxunicode + 1))
    return {letter: letter.lower() for letter in letters if letter.lower() != letter}


def _tokenize(graph: GraphBuilder, texts: str, pattern: str) -> str:
    """Find the tokens of each text: [rows] → [rows, tokens].

    A row with fewer tokens is filled with empty texts. Every row ends with at least one empty text.
    """
    tokens = graph.add("Tokenizer", texts, domain=RUNTIME, mark=0, mincharnum=1, pad_value="", tokenexp=pattern)
    return _with_blank(graph, tokens)


def _characters(graph: GraphBuilder, texts: str, *, in_words: bool) -> str:
    """Cut each text into its characters: [rows] → [rows, characters]. A blank of several characters becomes a space.

    If `in_words`, also cut at the start and the end, and replace every blank by a space. The n-grams of scikit-learn's
    analyzer `char_wb` never have a space between two other characters, so all others are not in the vocabulary.
    """
    if in_words:
        space = graph.constant(" ", "str")
        texts = graph.add("StringConcat", graph.add("StringConcat", space, texts), space)
    blank = _blank()
    pieces = _tokenize(graph, texts, f"[^{blank}]|[{blank}]+")
    is_blank = graph.add("RegexFullMatch", pieces, pattern=f"[{blank}]{{{1 if in_words else 2},}}")
    return graph.add("Where", is_blank, graph.constant(" ", "str"), pieces)


@cache
def _blank() -> str:
    return "".join(chr(code) for code in range(sys.maxunicode + 1) if chr(code).isspace())


def _with_blank(graph: GraphBuilder, tokens: str) -> str:
    """Append a column of empty texts, because many operators fail if a tensor has no column."""
    one = graph.constant([1], "int64")
    shape = graph.add("Concat", graph.add("Shape", tokens, end=1), one, axis=0)
    return graph.add("Concat", tokens, graph.add("Expand", graph.constant([[""]], "str"), shape), axis=1)


def _lower(graph: GraphBuilder, texts: str) -> str:
    upper = _lower_case()
    letters = "".join(upper)
    pieces = _tokenize(graph, texts, f"[^{letters}]+|[{letters}]")
    replaced = graph.add(
        "LabelEncoder",
        pieces,
        domain=ML,
        keys_strings=list(upper),
        values_strings=list(upper.values()),
        default_string="",
    )
    other = graph.add("Equal", replaced, graph.constant("", "str"))
    return _join(graph, graph.add("Where", other, pieces, replaced))


def _join(graph: GraphBuilder, pieces: str) -> str:
    """Join the pieces of each row: [rows, pieces] → [rows].

    A loop joins neighbouring pieces until one piece is left.
    """
    body = GraphBuilder("join_")
    given = "join_given"
    padded = _with_blank(body, given)
    one, two = body.constant([1], "int64"), body.constant([2], "int64")
    pairs = body.add("Div", body.add("Shape", padded, start=1), two)
    end = body.add("Mul", pairs, two)
    left, right = (body.add("Slice", padded, body.constant([start], "int64"), end, one, two) for start in (0, 1))
    joined = body.add("StringConcat", left, right)
    again = body.add("Squeeze", body.add("Greater", pairs, one))
    text, flag, count = onnx.TensorProto.STRING, onnx.TensorProto.BOOL, onnx.TensorProto.INT64
    loop = body.subgraph(
        "join",
        [("join_step", count, []), ("join_before", flag, []), (given, text, [None, None])],
        [(again, flag, []), (joined, text, [None, None])],
    )
    # 63 steps are enough for any number of pieces.
    whole = graph.add("Loop", graph.constant(63, "int64"), graph.constant(True, "bool"), pieces, body=loop)
    return graph.add("Reshape", whole, graph.constant([-1], "int64"))


def _drop(graph: GraphBuilder, tokens: str, words: Sequence[str]) -> str:
    """Remove words from the tokens of each row, and close the gaps."""
    dropped = graph.add(
        "LabelEncoder", tokens, domain=ML, keys_strings=list(words), values_int64s=[1] * len(words), default_int64=0
    )
    width = graph.add("Shape", tokens, start=1)
    scalar = graph.add("Squeeze", width)
    zero, one = graph.constant(0, "int64"), graph.constant(1, "int64")
    places = graph.add("Range", zero, scalar, one)
    order = graph.add("Add", places, graph.add("Mul", dropped, scalar))
    kept = graph.add("TopK", order, width, axis=1, largest=0, sorted=1, outputs=2)
    is_dropped = graph.add("Equal", dropped, one)
    blank = graph.add("Where", is_dropped, graph.constant("", "str"), tokens)
    return graph.add("GatherElements", blank, f"{kept}_1", axis=1)


def _vocabulary(fitted: CountVectorizer) -> dict[str, Any]:
    """Return the attributes of the ONNX operator TfIdfVectorizer: all n-grams, ordered by their number of tokens.

    The vocabulary of the analyzer `char_wb` also contains whole words that are shorter than the shortest n-gram.
    """
    shortest, longest = fitted.ngram_range
    by_length: dict[int, list[tuple[list[str], int]]] = {length: [] for length in range(1, longest + 1)}
    for gram, place in sorted(fitted.vocabulary_.items(), key=lambda each: each[1]):
        tokens = [*gram] if fitted.analyzer != "word" else gram.split(" ") if longest > 1 else [gram]
        shortest = min(shortest, len(tokens))
        by_length[len(tokens)].append((tokens, int(place)))
    starts: list[int] = []
    pool: list[str] = []
    places: list[int] = []
    for grams in by_length.values():
        starts.append(len(pool))
        pool += [token for tokens, _ in grams for token in tokens]
        places += [place for _, place in grams]
    return {
        "mode": "TF",
        "min_gram_length": shortest,
        "max_gram_length": longest,
        "max_skip_count": 0,
        "ngram_counts": starts,
        "ngram_indexes": places,
        "pool_strings": pool,
    }
