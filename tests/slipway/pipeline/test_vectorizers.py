"""Vectorizers of scikit-learn are exported exactly, and need no locale of the operating system."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pandas as pd
import pytest
from sklearn.compose import ColumnTransformer
from sklearn.feature_extraction.text import CountVectorizer, TfidfTransformer, TfidfVectorizer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.naive_bayes import MultinomialNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from slipway.bundle import Column, Schema, onnx_session
from slipway.errors import InputError
from slipway.pipeline import export
from slipway.pipeline.tensors import tensors

TEXTS = [
    "The quick brown fox jumps over the lazy dog",
    "THE QUICK! Brown FOX, jumped; over (the) dog's 2 dogs",
    "",
    "   \t\n ",
    "line one\nline TWO\r\nthe last line",
    "Übergrößen ÜBER größe straße STRASSE",
    "ПРИВЕТ мир Привет МИР",
    "naïve Café CAFÉ résumé Ǆ İstanbul",
    "日本語 テキスト 東京 123 \uff14\uff15\uff16 x² ½",
    "snake_case under_score __init__ a b c I",
    "fox\x02dog \x03 fox\x00dog",
    "🎉 the party 🎉🎉 at noon, the old place",
    "the the the the fox",
    'quote " backslash \\ tab\tfox',
    "A",
]
SCHEMA = Schema(
    kind="regression",
    key=("id",),
    target="y",
    classes=None,
    columns=(
        Column(name="size", type="number", required=True),
        Column(name="body", type="text", required=False, maximum=1_000),
    ),
)
VECTORIZERS = {
    "as people write it": TfidfVectorizer(),
    "common options": TfidfVectorizer(
        ngram_range=(1, 2), stop_words="english", sublinear_tf=True, min_df=1, max_df=0.9
    ),
    "counts": CountVectorizer(),
    "binary bigrams": CountVectorizer(ngram_range=(2, 2), binary=True),
    "trigrams": TfidfVectorizer(ngram_range=(1, 3), max_features=30),
    "as it is written": CountVectorizer(lowercase=False, token_pattern=r"(?u)\b\w+\b"),
    "own stop words": TfidfVectorizer(stop_words=["the", "fox"], norm="l1"),
    "no weights": TfidfVectorizer(use_idf=False, norm=None),
    "long words": CountVectorizer(token_pattern=r"\w{3,}"),
    "ascii words": TfidfVectorizer(token_pattern=r"[a-z]+"),
    "between blanks": CountVectorizer(token_pattern=r"\S+"),
    "characters": CountVectorizer(analyzer="char", ngram_range=(1, 3)),
    "characters in words": TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 4), sublinear_tf=True),
    "long n-grams in words": CountVectorizer(analyzer="char_wb", ngram_range=(5, 6), lowercase=False),
    "in two steps": make_pipeline(CountVectorizer(), TfidfTransformer(sublinear_tf=True)),
    "fixed vocabulary": CountVectorizer(vocabulary=["fox", "dog", "größe"]),
}


def frame(texts: list[str]) -> pd.DataFrame:
    return pd.DataFrame({"size": np.arange(len(texts), dtype="float32"), "body": pd.Series(texts, dtype="str")})


def model_with(vectorizer: Any, estimator: Any = None) -> Any:
    columns = ColumnTransformer([("body", vectorizer, "body"), ("size", "passthrough", ["size"])])
    return make_pipeline(columns, estimator or Ridge())


@pytest.mark.parametrize("vectorizer", VECTORIZERS.values(), ids=VECTORIZERS)
def test_a_vectorizer_is_exported_exactly(vectorizer: Any) -> None:
    rows = frame(TEXTS)
    fitted = model_with(vectorizer).fit(rows, np.cumsum(np.arange(len(TEXTS)) % 4))
    graph = export.to_onnx(fitted, SCHEMA)
    parity = export.check_parity(fitted, graph, [rows], SCHEMA, 1e-6)
    assert (parity.rows_beyond_tolerance, parity.cause) == (0, "")
    for texts in ([""], ["", " "], ["unknown"], ["FOX Über"]):  # as a server predicts
        assert export.check_parity(fitted, graph, [frame(texts)], SCHEMA, 1e-6).rows_beyond_tolerance == 0


def test_a_classifier_of_texts_is_exported_exactly() -> None:
    rows, labels = frame(TEXTS), np.array(["spam", "ham", "ham"] * 5)
    schema = SCHEMA.model_copy(update={"kind": "classification", "classes": ("ham", "spam")})
    for estimator in (LogisticRegression(), MultinomialNB()):
        fitted = model_with(TfidfVectorizer(), estimator).fit(rows, labels)
        graph = export.to_onnx(fitted, schema)
        assert export.check_parity(fitted, graph, [rows], schema, 1e-4).rows_beyond_tolerance == 0


def test_two_texts_and_scaled_numbers_are_exported_exactly() -> None:
    rows = frame(TEXTS).assign(title=pd.Series(TEXTS[::-1], dtype="str"))
    schema = SCHEMA.model_copy(
        update={"columns": (*SCHEMA.columns, Column(name="title", type="text", required=True, maximum=99))}
    )
    columns = ColumnTransformer(
        [
            ("title", TfidfVectorizer(), "title"),
            ("size", StandardScaler(), ["size"]),
            ("body", CountVectorizer(ngram_range=(1, 2)), "body"),
        ]
    )
    fitted = make_pipeline(columns, Ridge()).fit(rows, np.arange(len(TEXTS)))
    graph = export.to_onnx(fitted, schema)
    assert export.check_parity(fitted, graph, [rows], schema, 1e-6).rows_beyond_tolerance == 0


def test_equal_models_have_equal_bytes() -> None:
    def exported() -> bytes:
        fitted = model_with(TfidfVectorizer(stop_words="english", ngram_range=(1, 2))).fit(frame(TEXTS), np.arange(15))
        return bytes(export.to_onnx(fitted, SCHEMA).SerializeToString(deterministic=True))

    assert exported() == exported()


@pytest.mark.parametrize(
    ("vectorizer", "reason"),
    [
        (CountVectorizer(analyzer=str.split), "CountVectorizer with the option `analyzer`"),
        (CountVectorizer(analyzer="char_wb"), "start `ngram_range` at 2"),
        (TfidfVectorizer(strip_accents="unicode"), "TfidfVectorizer with the option `strip_accents`"),
        (TfidfVectorizer(tokenizer=str.split, token_pattern=None), "TfidfVectorizer with the option `tokenizer`"),
        (TfidfVectorizer(token_pattern=r"\w+(?=x)"), "the `token_pattern`"),
        (TfidfVectorizer(token_pattern=r"\w\w"), "the `token_pattern`"),
    ],
    ids=["analyzer", "single characters", "accents", "tokenizer", "pattern", "pairs"],
)
def test_an_option_without_equivalent_is_refused_by_name(vectorizer: Any, reason: str) -> None:
    texts = [f"{text} axx bxx" for text in TEXTS]
    fitted = model_with(vectorizer).fit(frame(texts), np.arange(len(texts)))
    with pytest.raises(InputError, match="cannot be exported") as error:
        export.to_onnx(fitted, SCHEMA)
    assert reason in str(error.value)


def test_the_graph_needs_no_locale(tmp_path: Path) -> None:
    """A distroless image has only the locale C."""
    fitted = model_with(TfidfVectorizer()).fit(frame(TEXTS), np.arange(len(TEXTS)))
    path = tmp_path / "model.onnx"
    onnx.save(export.to_onnx(fitted, SCHEMA), path)
    program = (
        "import sys, numpy as np, onnxruntime\n"
        "session = onnxruntime.InferenceSession(sys.argv[1], providers=['CPUExecutionProvider'])\n"
        "inputs = {'numbers': np.zeros((1, 1), np.float32), 'categories': np.array([['ÜBER Café FOX']], object)}\n"
        "print(repr(session.run(None, inputs)[0].item()))\n"
    )
    nowhere = {"PATH": os.environ["PATH"], "LC_ALL": "C", "LOCPATH": str(tmp_path), "PYTHONUTF8": "1"}
    done = subprocess.run(
        [sys.executable, "-c", program, str(path)], env=nowhere, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    rows = pd.DataFrame({"size": np.zeros(1, "float32"), "body": pd.Series(["ÜBER Café FOX"], dtype="str")})
    here = onnx_session(path.read_bytes()).run(None, tensors(rows, SCHEMA))[0].item()
    assert float(done.stdout) == here == pytest.approx(fitted.predict(rows)[0], rel=1e-5)
