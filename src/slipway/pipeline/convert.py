"""Convert fitted estimators with scikit-learn's interface to ONNX graphs that give the same predictions.

This module itself converts trees, and the models that may contain trees: pipelines, column transformers, and
calibrated, stacked and voting models. The graph computes in float64 wherever the estimator computes in float64.
skl2onnx converts all other steps, and this module merges the resulting graphs into the graph of the model.
"""

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

import numpy as np
import onnx
from skl2onnx import convert_sklearn
from skl2onnx.common.data_types import FloatTensorType, StringTensorType
from sklearn.base import is_classifier
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import ColumnTransformer, TransformedTargetRegressor
from sklearn.ensemble import StackingClassifier, StackingRegressor, VotingClassifier, VotingRegressor
from sklearn.feature_extraction.text import CountVectorizer, TfidfTransformer, TfidfVectorizer
from sklearn.frozen import FrozenEstimator
from sklearn.impute import MissingIndicator, SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.linear_model._base import LinearModel
from sklearn.model_selection._search import BaseSearchCV
from sklearn.pipeline import FeatureUnion, Pipeline
from sklearn.preprocessing import FunctionTransformer, KBinsDiscretizer, OneHotEncoder, OrdinalEncoder, StandardScaler

from slipway.bundle import Schema, onnx_session
from slipway.pipeline.fitted_trees import HISTOGRAM_BOOSTING, read_ensemble
from slipway.pipeline.onnx_graph import LEAF_OPERATOR_SETS, ML, GraphBuilder
from slipway.pipeline.preprocessing import calculate, encode_by_table, groups_categories, impute, indicate
from slipway.pipeline.trees import Ensemble, NotConvertible, NotExportable, search_tree
from slipway.pipeline.vectorizers import count_tokens, weigh


@dataclass(frozen=True)
class Matrix:
    """A tensor in the graph, with the shape [rows, width]."""

    name: str
    width: int
    dtype: str
    """`float32`, `float64` or `str`."""


@dataclass(frozen=True)
class Column:
    matrix: Matrix
    index: int
    name: str | None
    kind: str | None = None
    """`vector` or `image` if the column contains vectors or images, and None for numbers and texts. For a vector
    column, `matrix` contains only this column.
    """


@dataclass(frozen=True)
class Table:
    """The input of an estimator: columns of one or several tensors."""

    columns: tuple[Column, ...]
    sparse: bool = False
    """True if scikit-learn passes these columns to the next step as a sparse matrix."""

    @classmethod
    def of(cls, matrix: Matrix, sparse: bool = False) -> "Table":
        return cls(tuple(Column(matrix, index, None) for index in range(matrix.width)), sparse)


def convert(fitted: Any, schema: Schema, output: str) -> onnx.ModelProto:
    """Convert a fitted estimator to an ONNX graph.

    The graph has the inputs `numbers` and `categories`, and one further input for each vector. Its only output contains
    the predictions, the probabilities, or the columns that a transformer returns. Raises NotConvertible if a step has
    no equivalent in ONNX.
    """
    if hasattr(fitted, "transform") and not hasattr(fitted, "predict"):
        return convert_steps([("transformer", fitted)], schema, output)
    conversion = _Conversion()
    inputs, table = _given(schema)
    answer = conversion.response(fitted, table, "predict_proba" if schema.classes else "predict")
    return conversion.graph.model(inputs, answer.name, answer.width, output)


def convert_steps(steps: Sequence[tuple[str, Any]], schema: Schema, output: str) -> onnx.ModelProto:
    """Convert the first steps of a pipeline to a graph that returns the output of the last converted step."""
    conversion = _Conversion()
    inputs, table = _given(schema)
    made = conversion.matrix(conversion.steps(steps, table))
    return conversion.graph.model(inputs, made.name, made.width, output)


def _given(schema: Schema) -> tuple[list[tuple[str, str, int]], Table]:
    """Return each input of the graph as (name, type, width), and the table of all features."""
    inputs = {
        name: Matrix(name, len(columns), dtype)
        for name, columns, dtype in (("numbers", schema.numbers, "float32"), ("categories", schema.categories, "str"))
        if columns
    }
    places = {
        name: Column(inputs[tensor], index, name)
        for tensor, columns in (("numbers", schema.numbers), ("categories", schema.categories))
        for index, name in enumerate(columns)
    }
    for column in schema.columns:
        if column.type == "vector":
            inputs[column.name] = Matrix(column.name, sum(column.shape or ()), "float32")
            places[column.name] = Column(inputs[column.name], 0, column.name, "vector")
        elif column.type == "image":  # only a graph from the model's own `to_onnx` can read images
            places[column.name] = Column(Matrix(column.name, 0, "uint8"), 0, column.name, "image")
    table = Table(tuple(places[column.name] for column in schema.columns))
    return [(each.name, each.dtype, each.width) for each in inputs.values()], table


class _Conversion:
    def __init__(self) -> None:
        self.graph = GraphBuilder()

        self._responses: tuple[tuple[Any, Callable[[Any, Table, str], Matrix]], ...] = (
            (Pipeline, self._pipeline),
            (FrozenEstimator, lambda fitted, table, method: self.response(fitted.estimator, table, method)),
            (BaseSearchCV, lambda fitted, table, method: self.response(fitted.best_estimator_, table, method)),
            (TransformedTargetRegressor, lambda fitted, table, _: self._transformed_target(fitted, table)),
            ((VotingRegressor, VotingClassifier), self._vote),
            ((StackingRegressor, StackingClassifier), self._stack),
            (CalibratedClassifierCV, lambda fitted, table, _: self._calibrated(fitted, table)),
            ((LinearModel, LogisticRegression), self._linear),
        )
        self._transforms: tuple[tuple[Any, Callable[[Any, Table], Table]], ...] = (
            (Pipeline, lambda fitted, table: self.steps(fitted.steps, table)),
            (ColumnTransformer, self._column_transformer),
            (FeatureUnion, self._union),
            (StandardScaler, self._scaled),
            (SimpleImputer, self._imputed),
            (MissingIndicator, self._indicated),
            ((OneHotEncoder, OrdinalEncoder), self._encoded),
            (KBinsDiscretizer, self._binned),
            (FunctionTransformer, self._calculated),
            (CountVectorizer, self._vectorized),
            (TfidfTransformer, self._weighed),
        )

    def response(self, fitted: Any, table: Table, method: str) -> Matrix:
        """Add nodes that compute `method` of the estimator: `predict`, `predict_proba` or `decision_function`."""
        for classes, respond in self._responses:
            if isinstance(fitted, classes):
                return respond(fitted, table, method)
        ensemble = read_ensemble(fitted)
        if ensemble is None:
            return self._leaf(fitted, table, method)
        if isinstance(fitted, HISTOGRAM_BOOSTING):
            table = self._categories_first(fitted, table)
        return self._trees(ensemble, table, method)

    def transform(self, fitted: Any, table: Table) -> Table:
        """Add nodes that compute `fitted.transform`."""
        if fitted in (None, "passthrough") or (isinstance(fitted, FunctionTransformer) and fitted.func is None):
            return table
        if [column.kind for column in table.columns] == ["vector"] and getattr(fitted, "func", None) is np.stack:
            return Table.of(table.columns[0].matrix)
        if isinstance(fitted, str):  # the only other text is "drop"
            return Table(())
        for classes, transform in self._transforms:
            if isinstance(fitted, classes):
                return transform(fitted, table)
        return self._leaf_transform(fitted, table)

    def _pipeline(self, fitted: Any, table: Table, method: str) -> Matrix:
        return self.response(fitted.steps[-1][1], self.steps(fitted.steps[:-1], table), method)

    def steps(self, steps: Sequence[tuple[str, Any]], table: Table) -> Table:
        for _, step in steps:
            table = self.transform(step, table)
        return table

    def _column_transformer(self, fitted: Any, table: Table) -> Table:
        parts = {name: self.transform(step, _pick(table, columns)) for name, step, columns in fitted.transformers_}
        return Table.of(self._weighted(parts, fitted.transformer_weights), fitted.sparse_output_)

    def _union(self, fitted: Any, table: Table) -> Table:
        parts = {name: self.transform(step, table) for name, step in fitted.transformer_list}
        joined = self._weighted(parts, fitted.transformer_weights)
        return Table.of(joined, any(part.sparse for part in parts.values()))

    def _weighted(self, parts: Mapping[str, Table], weights: Mapping[str, float] | None) -> Matrix:
        """Multiply each step's output by the weight of the step, and join all outputs."""
        for name, weight in (weights or {}).items():
            if name in parts and parts[name].columns:
                weighed = self.apply("Mul", self.matrix(parts[name]), weight)
                parts = {**parts, name: Table.of(weighed, parts[name].sparse)}
        return self.matrix(Table(tuple(column for part in parts.values() for column in part.columns)))

    def matrix(self, table: Table) -> Matrix:
        """Join the columns of a table to one tensor. One node gathers adjacent columns of the same tensor."""
        if not table.columns:
            raise NotConvertible("a step without columns")
        if kinds := {column.kind for column in table.columns} - {None}:
            advice = "only a method `to_onnx` exports it" if "image" in kinds else "use `FunctionTransformer(np.stack)`"
            raise NotConvertible(f"a step that reads a column of the kind {min(map(str, kinds))}; {advice}")
        dtypes = {column.matrix.dtype for column in table.columns}
        if len(dtypes) > 1 and "str" in dtypes:
            raise NotConvertible("a step with both text and number features; encode categories before it")
        dtype = dtypes.pop() if len(dtypes) == 1 else "float64"
        parts = []
        for matrix, columns in groupby(table.columns, key=lambda column: column.matrix):
            chosen = [column.index for column in columns]
            whole = chosen == list(range(matrix.width))
            name = matrix.name
            if not whole:
                name = self.graph.add("Gather", name, self.graph.constant(chosen, "int64"), axis=1)
            parts.append(self.cast(Matrix(name, len(chosen), matrix.dtype), dtype))
        return self.concat(parts)

    def cast(self, matrix: Matrix, dtype: str) -> Matrix:
        if matrix.dtype == dtype:
            return matrix
        return replace(matrix, name=self.graph.cast(matrix.name, dtype), dtype=dtype)

    def concat(self, parts: Sequence[Matrix]) -> Matrix:
        if len(parts) == 1:
            return parts[0]
        name = self.graph.add("Concat", *(part.name for part in parts), axis=1)
        return Matrix(name, sum(part.width for part in parts), parts[0].dtype)

    def apply(self, operator: str, matrix: Matrix, *constants: Any, **attributes: Any) -> Matrix:
        """Add an elementwise operator.

        The inputs of the operator are the matrix and `constants`. `constants` are converted to the type of the matrix.
        """
        more = [self.graph.constant(each, matrix.dtype) for each in constants]
        return replace(matrix, name=self.graph.add(operator, matrix.name, *more, **attributes))

    def second(self, probability: Matrix) -> Matrix:
        """Return the probabilities of both classes, computed from the probability of the second class."""
        one = self.graph.constant([1.0], probability.dtype)
        return self.concat([replace(probability, name=self.graph.add("Sub", one, probability.name)), probability])

    def _trees(self, ensemble: Ensemble, table: Table, method: str) -> Matrix:
        given = self.matrix(table)
        if given.dtype == "str":
            raise NotConvertible("trees with text features; encode categories before the trees")
        if table.sparse and ensemble.zero_is_missing:
            zero = self.graph.add("Equal", given.name, self.graph.constant(0.0, given.dtype))
            missing = self.graph.constant(np.nan, given.dtype)
            given = replace(given, name=self.graph.add("Where", zero, missing, given.name))
        given = self.cast(self.cast(given, ensemble.reads), ensemble.dtype)
        ensemble, given = self._whole_categories(ensemble, given)
        raw = Matrix(self.graph.trees(ensemble, given.name), ensemble.targets, ensemble.dtype)
        if ensemble.divisor != 1:
            raw = self.apply("Div", raw, ensemble.divisor)
        return raw if method == "decision_function" else self._linked(ensemble, raw, method)

    def _whole_categories(self, ensemble: Ensemble, given: Matrix) -> tuple[Ensemble, Matrix]:
        """Append integer copies of the categorical features. Splits on a category then read the copies."""
        if not ensemble.whole:
            return ensemble, given
        features = sorted(ensemble.whole)
        name = self.graph.add("Gather", given.name, self.graph.constant(features, "int64"), axis=1)
        whole = self.graph.add(
            "Mul", self.graph.add("Sign", name), self.graph.add("Floor", self.graph.add("Abs", name))
        )
        moved = {feature: given.width + at for at, feature in enumerate(features)}
        trees = []
        for target, tree in ensemble.trees:
            own = tree.feature.copy()
            for node in tree.members:
                own[node] = moved[int(own[node])]
            trees.append((target, replace(tree, feature=own)))
        return replace(ensemble, trees=trees), self.concat([given, Matrix(whole, len(features), given.dtype)])

    def _linked(self, ensemble: Ensemble, raw: Matrix, method: str) -> Matrix:
        """Apply the link function to the sums of leaf values.

        Sums in float32 stay float32, as in XGBoost. Only exponentials are computed in float64.
        """
        if ensemble.slope != 1:
            raw = self.apply("Mul", raw, ensemble.slope)
        if ensemble.link == "shares" and raw.width == 1:
            return self.second(self.apply("Clip", raw, 0.0, 1.0))
        if ensemble.link == "sigmoid":
            return self.second(self._sigmoid(raw)) if method == "predict_proba" else self._sigmoid(raw)
        return {"softmax": self._softmax, "exp": self._exp}.get(ensemble.link, lambda same: same)(raw)

    def _exp(self, matrix: Matrix) -> Matrix:
        return self.cast(self.apply("Exp", self.cast(matrix, "float64")), matrix.dtype)

    def _sigmoid(self, matrix: Matrix) -> Matrix:
        if matrix.dtype == "float64":
            return self.apply("Sigmoid", matrix)
        return self.apply("Reciprocal", self.apply("Add", self._exp(self.apply("Neg", matrix)), 1.0))

    def _softmax(self, matrix: Matrix) -> Matrix:
        return self.cast(self.apply("Softmax", self.cast(matrix, "float64"), axis=1), matrix.dtype)

    def _categories_first(self, fitted: Any, table: Table) -> Table:
        """Encode the categories and move them to the front, as HistGradientBoosting does before it fits its trees."""
        if fitted._preprocessor is None:
            return table
        numeric = [column for column, own in zip(table.columns, fitted.is_categorical_, strict=True) if not own]
        own = [column for column, own in zip(table.columns, fitted.is_categorical_, strict=True) if own]
        encoder = fitted._preprocessor.named_transformers_["encoder"]
        encoded = self.transform(encoder, Table(tuple(own)))
        return Table((*encoded.columns, *numeric))

    def _linear(self, fitted: Any, table: Table, method: str) -> Matrix:
        given = self.matrix(table)
        if given.dtype == "str":
            raise NotConvertible("a linear model with text features; encode categories before it")
        coefficients = np.atleast_2d(fitted.coef_).T
        given = self.cast(given, np.result_type(given.dtype, coefficients.dtype).name)
        product = self.graph.add("MatMul", given.name, self.graph.constant(coefficients, given.dtype))
        raw = self.apply("Add", Matrix(product, coefficients.shape[1], given.dtype), np.ravel(fitted.intercept_))
        if method != "predict_proba":
            return raw
        return self.second(self._sigmoid(raw)) if raw.width == 1 else self._softmax(raw)

    def _scaled(self, fitted: Any, table: Table) -> Table:
        """Add nodes for a StandardScaler. The nodes compute in the type of the input, as scikit-learn does."""
        given = self.matrix(table)
        if fitted.with_mean:
            given = self.apply("Sub", given, fitted.mean_)
        if fitted.with_std:
            given = self.apply("Div", given, fitted.scale_)
        return Table.of(given, table.sparse)

    def _imputed(self, fitted: Any, table: Table) -> Table:
        """Convert a SimpleImputer. Indicators of missing values follow the imputed columns."""
        if not fitted.add_indicator:
            return self._leaf_transform(fitted, table)
        given = self.matrix(table)
        if given.dtype == "str":
            raise NotExportable("SimpleImputer(add_indicator=True) with categories; use MissingIndicator for them")
        name, width = impute(fitted, self.graph, given.name, given.dtype)
        imputed = Table.of(Matrix(name, width, given.dtype), table.sparse)
        indicators = self._indicated(fitted.indicator_, Table.of(given))
        return replace(imputed, columns=(*imputed.columns, *indicators.columns))

    def _indicated(self, fitted: Any, table: Table) -> Table:
        given = self.matrix(table)
        return Table.of(Matrix(*indicate(fitted, self.graph, given.name, given.dtype), "float32"), table.sparse)

    def _encoded(self, fitted: Any, table: Table) -> Table:
        if not groups_categories(fitted):
            return self._leaf_transform(fitted, table)
        given = self.matrix(table)
        if given.dtype != "str":
            raise NotConvertible(f"{type(fitted).__name__} that groups the values of numbers; use KBinsDiscretizer")
        codes = Matrix(*encode_by_table(fitted, self.graph, given.name), "float64")
        sparse = bool(getattr(fitted, "sparse_output", False))
        return Table.of(self.cast(codes, "float32") if fitted.dtype == np.float32 else codes, sparse)

    def _binned(self, fitted: Any, table: Table) -> Table:
        """Convert a KBinsDiscretizer. Its output is dense, because skl2onnx does not support sparse output."""
        dense = copy.copy(fitted)
        if fitted.encode == "onehot":
            dense.encode = "onehot-dense"
        return replace(self._leaf_transform(dense, table), sparse=fitted.encode == "onehot")

    def _calculated(self, fitted: Any, table: Table) -> Table:
        given = self.matrix(table)
        if given.dtype == "str":
            raise NotConvertible("FunctionTransformer with categories")
        return Table.of(replace(given, name=calculate(fitted, self.graph, given.name, given.dtype)), table.sparse)

    def _vectorized(self, fitted: Any, table: Table) -> Table:
        """Convert a CountVectorizer or TfidfVectorizer that reads one text column."""
        given = self.matrix(table)
        if given.dtype != "str" or given.width != 1:
            raise NotConvertible(f"{type(fitted).__name__} with several columns, or with a number")
        counts = count_tokens(fitted, self.graph, given.name)
        counted = Table.of(Matrix(counts, len(fitted.vocabulary_), "float32"), sparse=True)
        return self._weighed(fitted._tfidf, counted) if isinstance(fitted, TfidfVectorizer) else counted

    def _weighed(self, fitted: Any, table: Table) -> Table:
        counts = self.cast(self.matrix(table), "float64")
        return Table.of(replace(counts, name=weigh(fitted, self.graph, counts.name)), sparse=True)

    def _transformed_target(self, fitted: Any, table: Table) -> Matrix:
        answer = self.response(fitted.regressor_, table, "predict")
        inverse = getattr(fitted.inverse_func, "__name__", None)
        if inverse == "exp":
            return self.apply("Exp", answer)
        if inverse == "expm1":
            return self.apply("Sub", self.apply("Exp", answer), 1.0)
        raise NotConvertible("TransformedTargetRegressor with another `inverse_func` than numpy.exp or numpy.expm1")

    def _vote(self, fitted: Any, table: Table, method: str) -> Matrix:
        if method == "predict_proba" and fitted.voting != "soft":
            raise NotConvertible("VotingClassifier without voting='soft'")
        weights = fitted._weights_not_none or [1.0] * len(fitted.estimators_)
        answers = [self.cast(self.response(each, table, method), "float64") for each in fitted.estimators_]
        weighed = [self.apply("Mul", each, float(weight)) for each, weight in zip(answers, weights, strict=True)]
        total = replace(weighed[0], name=self.graph.add("Sum", *(each.name for each in weighed)))
        return self.apply("Div", total, float(np.sum(weights)))

    def _stack(self, fitted: Any, table: Table, method: str) -> Matrix:
        parts: list[Column] = []
        for each, own_method in zip(fitted.estimators_, fitted.stack_method_, strict=True):
            if own_method == "predict" and is_classifier(each):
                raise NotConvertible("StackingClassifier with stack_method='predict'")
            columns = Table.of(self.response(each, table, own_method)).columns
            two = own_method == "predict_proba" and len(columns) == 2
            parts += columns[1:] if two else columns
        if fitted.passthrough:
            parts += table.columns
        return self.response(fitted.final_estimator_, Table.of(self.matrix(Table(tuple(parts)))), method)

    def _calibrated(self, fitted: Any, table: Table) -> Matrix:
        """Average the probabilities of the calibrated classifiers."""
        answers = [self._calibrated_fold(each, table) for each in fitted.calibrated_classifiers_]
        if len(answers) == 1:
            return answers[0]
        total = replace(answers[0], name=self.graph.add("Sum", *(each.name for each in answers)))
        return self.apply("Div", total, float(len(answers)))

    def _calibrated_fold(self, fitted: Any, table: Table) -> Matrix:
        if len(fitted.estimator.classes_) != len(fitted.classes):
            raise NotConvertible("CalibratedClassifierCV with a fold that lacks a class")
        method = "decision_function" if hasattr(fitted.estimator, "decision_function") else "predict_proba"
        scores = self.cast(self.response(fitted.estimator, table, method), "float64")
        if fitted.method == "temperature":
            return self._tempered(fitted.calibrators[0], scores, method)
        binary = len(fitted.classes) == 2
        columns = [scores] if scores.width == 1 else [self._column(scores, at) for at in range(scores.width)]
        columns = columns[-1:] if binary else columns
        parts = [self._calibrate(each, score) for each, score in zip(fitted.calibrators, columns, strict=True)]
        if binary:
            return self.second(self.apply("Clip", parts[0], 0.0, 1.0))
        joined = self.concat(parts)
        total = self.graph.add("ReduceSum", joined.name, self.graph.constant([1], "int64"), keepdims=1)
        none = self.graph.add("Equal", total, self.graph.constant(0.0, "float64"))
        shares = self.graph.add("Div", joined.name, total)
        even = self.graph.constant(1 / joined.width, "float64")
        return replace(joined, name=self.graph.add("Where", none, even, shares))

    def _column(self, matrix: Matrix, at: int) -> Matrix:
        return self.matrix(Table((Column(matrix, at, None),)))

    def _calibrate(self, calibrator: Any, score: Matrix) -> Matrix:
        if hasattr(calibrator, "a_"):
            return self.apply("Sigmoid", self.apply("Sub", self.apply("Mul", score, -calibrator.a_), calibrator.b_))
        return self._interpolated(calibrator, score)

    def _interpolated(self, isotonic: Any, score: Matrix) -> Matrix:
        """Interpolate linearly between the knots of an isotonic regression."""
        x, y = isotonic.X_thresholds_.astype(np.float64), isotonic.y_thresholds_.astype(np.float64)
        score = self.cast(self.cast(score, str(isotonic.X_thresholds_.dtype)), "float64")
        if len(x) == 1:
            return self.apply("Add", self.apply("Mul", score, 0.0), y[0])
        score = self.apply("Clip", score, x[0], x[-1])
        tree = Ensemble([(0, search_tree(x[1:-1]))], [0.0], "identity", comparison="<")
        at = self.graph.cast(self.graph.trees(tree, score.name), "int64")
        slope, start, level = (
            self.graph.add("Gather", self.graph.constant(values, "float64"), at)
            for values in (np.diff(y) / np.diff(x), x[:-1], y[:-1])
        )
        run = self.graph.add("Mul", slope, self.graph.add("Sub", score.name, start))
        return replace(score, name=self.graph.add("Add", run, level))

    def _tempered(self, calibrator: Any, scores: Matrix, method: str) -> Matrix:
        if method == "predict_proba":
            scores = self.apply("Log", self.apply("Add", scores, 1e-12))
        elif scores.width == 1:
            scores = self.concat([self.apply("Neg", scores), scores])
        return self.apply("Softmax", self.apply("Mul", scores, calibrator.beta_), axis=1)

    def _leaf(self, fitted: Any, table: Table, method: str) -> Matrix:
        """Convert an estimator with skl2onnx, because this module has no conversion for it."""
        options: dict[str, Any] = {}
        if is_classifier(fitted):
            if method == "predict":
                raise NotConvertible(f"the labels that {type(fitted).__name__} predicts")
            options = {"zipmap": False} | ({"raw_scores": True} if method == "decision_function" else {})
        name, width = self._skl2onnx(fitted, table, {id(fitted): options} if options else None)
        classes = len(getattr(fitted, "classes_", ()))
        return Matrix(name, classes or width or 1, "float32")

    def _leaf_transform(self, fitted: Any, table: Table) -> Table:
        if getattr(fitted, "add_indicator", False):
            name = type(fitted).__name__
            raise NotExportable(f"{name}(add_indicator=True); use SimpleImputer(add_indicator=True)")
        name, width = self._skl2onnx(fitted, table, None)
        try:
            width = len(fitted.get_feature_names_out())
        except (AttributeError, ValueError, TypeError):
            if not width:
                raise NotConvertible(f"{type(fitted).__name__} has an unknown number of output columns") from None
        dtype = np.dtype(getattr(fitted, "dtype", None) or np.float32).name
        if dtype not in ("float32", "float64"):
            raise NotConvertible(f"{type(fitted).__name__} with the type {dtype}")
        made = self.cast(Matrix(name, width, "float32"), dtype)
        return Table.of(made, bool(getattr(fitted, "sparse_output", False)))

    def _skl2onnx(self, fitted: Any, table: Table, options: Any) -> tuple[str, int]:
        """Convert one step with skl2onnx and merge the resulting graph.

        Return the name and the width of the output. The width is 0 if it is unknown.
        """
        given = self.matrix(table)
        if given.dtype == "float64":
            given = self.cast(given, "float32")
        kind = StringTensorType if given.dtype == "str" else FloatTensorType
        try:
            model = convert_sklearn(
                fitted,
                name="step",  # the default name is random, and would change the bundle's hash
                initial_types=[("given", kind([None, given.width]))],
                options=options,
                target_opset=LEAF_OPERATOR_SETS,
            )
        except Exception as error:  # the converters of skl2onnx raise exceptions of any type
            raise NotConvertible(f"skl2onnx cannot export {type(fitted).__name__}: {_first_sentence(error)}") from error
        if any(node.domain == ML and node.op_type.startswith("TreeEnsemble") for node in model.graph.node):
            raise NotConvertible(f"the trees in {type(fitted).__name__}")
        _require_loadable(model, type(fitted).__name__)
        shape = model.graph.output[-1].type.tensor_type.shape.dim
        return self.graph.merge(model, given.name), shape[1].dim_value if len(shape) > 1 else 0


def _require_loadable(step: onnx.ModelProto, name: str) -> None:
    """Raise NotConvertible if a graph from skl2onnx defines its own functions, or if ONNX Runtime cannot load it."""
    if step.functions:
        raise NotConvertible(f"{name}, which skl2onnx exports with functions of its own")
    try:
        onnx_session(step.SerializeToString())
    except Exception as error:  # onnxruntime has no common class for its errors
        raise NotConvertible(f"{name} with these options, for which skl2onnx writes an invalid graph") from error


def _first_sentence(error: Exception) -> str:
    """Return the first line of an error message, without the advice to open an issue in another project."""
    return str(error).splitlines()[0].split(" You may raise")[0]


def _pick(table: Table, columns: Any) -> Table:
    """Return the columns that a ColumnTransformer selects by name, position, slice or mask."""
    names = [column.name for column in table.columns]
    positions = np.arange(len(names))
    if callable(columns):
        raise NotConvertible("a ColumnTransformer that chooses columns by a function")
    if isinstance(columns, slice) and isinstance(columns.start or columns.stop, str):
        first = names.index(columns.start) if columns.start else 0
        last = names.index(columns.stop) if columns.stop else len(names) - 1
        chosen = positions[first : last + 1]
    elif isinstance(columns, slice):
        chosen = positions[columns]
    else:
        listed = np.atleast_1d(np.asarray(columns, dtype=object))
        if len(listed) and all(isinstance(each, (bool, np.bool_)) for each in listed):
            chosen = positions[listed.astype(bool)]
        else:
            chosen = np.array(
                [names.index(each) if isinstance(each, str) else positions[int(each)] for each in listed], int
            )
    return Table(tuple(table.columns[int(each)] for each in chosen))
