"""Fit TF-IDF weights of words and pairs of words, and a logistic regression."""

from collections.abc import Mapping
from typing import Any

import pandas as pd
from sklearn.compose import ColumnTransformer
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import OneHotEncoder


def fit(features: pd.DataFrame, target: "pd.Series[str]", settings: Mapping[str, Any], seed: int) -> Pipeline:
    """Fit with `train.settings` of params.yaml, which has arguments of TfidfVectorizer."""
    encoder = ColumnTransformer(
        [
            ("channel", OneHotEncoder(handle_unknown="ignore", sparse_output=False), ["channel"]),
            ("subject", TfidfVectorizer(**settings), "subject"),
            ("body", TfidfVectorizer(**settings, ngram_range=(1, 2), stop_words="english"), "body"),
        ]
    )
    return make_pipeline(encoder, LogisticRegression(random_state=seed, max_iter=1_000)).fit(features, target)
