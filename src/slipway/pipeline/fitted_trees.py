"""Read the fitted trees of scikit-learn, LightGBM, XGBoost and CatBoost into arrays, with thresholds in full precision.

The usual ONNX converters write thresholds as float32. A threshold between two float32 numbers is rounded to one of
these numbers. A row whose value equals the rounded threshold can then take the wrong branch. This module keeps
thresholds in float64. Inputs are float32, and the graph compares an input with a threshold in the same way as the
library that fitted the trees.
"""

import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import (
    ExtraTreesClassifier,
    ExtraTreesRegressor,
    GradientBoostingClassifier,
    GradientBoostingRegressor,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

from slipway.pipeline.trees import Ensemble, Link, NotConvertible, Tree

SINGLE_TREES = (DecisionTreeRegressor, DecisionTreeClassifier)
FORESTS = (RandomForestRegressor, RandomForestClassifier, ExtraTreesRegressor, ExtraTreesClassifier)
GRADIENT_BOOSTING = (GradientBoostingRegressor, GradientBoostingClassifier)
HISTOGRAM_BOOSTING = (HistGradientBoostingRegressor, HistGradientBoostingClassifier)
LIGHTGBM_LINKS: dict[str, Link] = {
    "binary": "sigmoid",
    "cross_entropy": "sigmoid",
    "multiclass": "softmax",
    "poisson": "exp",
    "gamma": "exp",
    "tweedie": "exp",
    **dict.fromkeys(("regression", "regression_l1", "huber", "fair", "quantile", "mape"), "identity"),
}
LIGHTGBM_ZERO = float(np.float32(1e-35))
XGBOOST_LINKS: dict[str, Link] = {
    "binary:logistic": "sigmoid",
    "reg:logistic": "sigmoid",
    "multi:softprob": "softmax",
    "count:poisson": "exp",
    "reg:gamma": "exp",
    "reg:tweedie": "exp",
    **dict.fromkeys(
        ("reg:squarederror", "reg:absoluteerror", "reg:pseudohubererror", "reg:squaredlogerror"), "identity"
    ),
}
CATBOOST_LINKS: dict[str, Link] = {
    "Logloss": "sigmoid",
    "CrossEntropy": "sigmoid",
    "MultiClass": "softmax",
    "Poisson": "exp",
    "Tweedie": "exp",
    **dict.fromkeys(("RMSE", "MAE", "Quantile", "Huber", "MAPE"), "identity"),
}


def read_ensemble(fitted: Any) -> Ensemble | None:
    """Read the trees of a fitted model. Return None if the model does not consist of trees.

    Raises NotConvertible if ONNX cannot represent this variant of the model exactly.
    """
    for cls in type(fitted).__mro__:
        read = READERS.get((cls.__module__.partition(".")[0], cls.__name__))
        if read is not None:
            return read(fitted)
    return None


def _forest(fitted: Any, trees: Sequence[Any]) -> Ensemble:
    if fitted.n_outputs_ != 1:
        raise NotConvertible(f"{type(fitted).__name__} has {fitted.n_outputs_} targets; fit it on one.")
    classes = getattr(fitted, "n_classes_", 1)
    counted = (1,) if classes == 2 else tuple(range(classes))
    return Ensemble(
        trees=[
            (target, _sklearn_tree(each.tree_, each.tree_.value[:, 0, at]))
            for each in trees
            for target, at in enumerate(counted)
        ],
        base=[0.0] * len(counted),
        link="shares" if hasattr(fitted, "classes_") else "identity",
        divisor=float(len(trees)),
        reads="float32",
    )


def _gradient_boosting(fitted: Any) -> Ensemble:
    if fitted.init is not None and fitted.init != "zero":
        raise NotConvertible(f"{type(fitted).__name__} starts from another estimator; leave `init` out.")
    start = fitted._raw_predict_init(np.zeros((1, fitted.n_features_in_), np.float32))[0]
    binary, classes = len(start) == 1, hasattr(fitted, "classes_")
    return Ensemble(
        trees=[
            (target, _sklearn_tree(each.tree_, fitted.learning_rate * each.tree_.value[:, 0, 0]))
            for stage in fitted.estimators_
            for target, each in enumerate(stage)
        ],
        base=start.tolist(),
        link=("sigmoid" if binary else "softmax") if classes else "identity",
        slope=2.0 if fitted.loss == "exponential" else 1.0,
        reads="float32",
    )


def _sklearn_tree(tree: Any, value: NDArray[np.float64]) -> Tree:
    return Tree(
        left=tree.children_left,
        right=tree.children_right,
        feature=tree.feature,
        threshold=tree.threshold,
        missing_left=tree.missing_go_to_left.astype(bool),
        value=value,
    )


def _histogram_boosting(fitted: Any) -> Ensemble:
    """Read a histogram-based boosting model.

    In its trees, the categorical features have the lowest indices.
    """
    start = np.asarray(fitted._baseline_prediction).ravel()
    if hasattr(fitted, "classes_"):
        link: Link = "sigmoid" if len(start) == 1 else "softmax"
    else:
        link = "exp" if fitted.loss in ("poisson", "gamma") else "identity"
    return Ensemble(
        trees=[(target, _histogram_tree(each)) for stage in fitted._predictors for target, each in enumerate(stage)],
        base=start.tolist(),
        link=link,
    )


def _histogram_tree(predictor: Any) -> Tree:
    nodes = predictor.nodes
    leaf = nodes["is_leaf"].astype(bool)
    return Tree(
        left=np.where(leaf, -1, nodes["left"].astype(np.int64)),
        right=np.where(leaf, -1, nodes["right"].astype(np.int64)),
        feature=nodes["feature_idx"].astype(np.int64),
        threshold=nodes["num_threshold"],
        missing_left=nodes["missing_go_to_left"].astype(bool),
        value=nodes["value"],
        members={
            int(node): _set_bits(predictor.raw_left_cat_bitsets[nodes["bitset_idx"][node]])
            for node in np.flatnonzero(nodes["is_categorical"].astype(bool) & ~leaf)
        },
    )


def _set_bits(words: NDArray[np.uint32]) -> list[float]:
    return [float(32 * at + bit) for at, word in enumerate(words) for bit in range(32) if int(word) >> bit & 1]


def _lightgbm(booster: Any) -> Ensemble:
    model = booster.dump_model()
    name, *arguments = (model.get("objective") or "custom").split()
    if name not in LIGHTGBM_LINKS or "sqrt" in arguments:
        raise NotConvertible(f"LightGBM's objective {' '.join([name, *arguments])} has no exact form in ONNX.")
    settings = dict(each.split(":") for each in arguments if ":" in each)
    targets = model["num_tree_per_iteration"]
    trees = [_lightgbm_tree(each["tree_structure"]) for each in model["tree_info"]]
    return Ensemble(
        trees=[(at % targets, tree) for at, tree in enumerate(trees)],
        base=[0.0] * targets,
        link=LIGHTGBM_LINKS[name],
        divisor=float(len(trees) // targets) if model["average_output"] else 1.0,
        slope=float(settings.get("sigmoid", 1.0)),
        whole=frozenset(int(tree.feature[node]) for tree in trees for node in tree.members),
    )


def _lightgbm_tree(root: Mapping[str, Any]) -> Tree:
    nodes, children = _walk(root, lambda node: [node[side] for side in ("left_child", "right_child") if side in node])
    if any("leaf_coeff" in node for node in nodes):
        raise NotConvertible("LightGBM's linear_tree has no exact form in ONNX; leave it out.")
    if any(node.get("missing_type") == "Zero" for node in nodes):
        raise NotConvertible("LightGBM's zero_as_missing has no exact form in ONNX; leave it out.")
    members = {
        at: [float(each) for each in node["threshold"].split("||")]
        for at, node in enumerate(nodes)
        if node.get("decision_type") == "=="
    }
    thresholds = [
        0.0 if at in members else _lightgbm_threshold(float(node.get("threshold", 0.0)))
        for at, node in enumerate(nodes)
    ]
    return Tree(
        left=np.array([each[0] if each else -1 for each in children]),
        right=np.array([each[1] if each else -1 for each in children]),
        feature=np.array([node.get("split_feature", 0) for node in nodes]),
        threshold=np.array(thresholds),
        missing_left=np.array(
            [at not in members and _lightgbm_missing_left(node, thresholds[at]) for at, node in enumerate(nodes)]
        ),
        value=np.array([float(node.get("leaf_value", 0.0)) for node in nodes]),
        members=members,
    )


def _lightgbm_threshold(threshold: float) -> float:
    """Move a threshold near 0, because LightGBM treats numbers between -1e-35 and 1e-35 as 0."""
    if abs(threshold) > LIGHTGBM_ZERO:
        return threshold
    return LIGHTGBM_ZERO if threshold >= 0 else float(np.nextafter(-LIGHTGBM_ZERO, -1))


def _lightgbm_missing_left(node: Mapping[str, Any], threshold: float) -> bool:
    """Return True if missing values go left. LightGBM treats them as 0 if the training rows had no missing value."""
    return bool(node.get("default_left")) if node.get("missing_type") == "NaN" else threshold >= 0


def _walk(root: Any, children_of: Callable[[Any], list[Any]]) -> tuple[list[Any], list[list[int]]]:
    """Return all nodes, starting with `root`, and for each node the positions of its children."""
    nodes, children = [root], []
    for node in nodes:  # the loop appends to `nodes`
        below = children_of(node)
        children.append([len(nodes) + at for at in range(len(below))])
        nodes += below
    return nodes, children


def _xgboost(booster: Any, fitted: Any) -> Ensemble:
    """Read an XGBoost model. XGBoost computes in float32, and its sums start with the base score."""
    model = json.loads(bytes(booster.save_raw("json")))["learner"]
    objective = model["objective"]["name"]
    if objective not in XGBOOST_LINKS or model["gradient_booster"]["name"] != "gbtree":
        raise NotConvertible(
            f"XGBoost's objective {objective} with the booster {model['gradient_booster']['name']} has no exact form "
            "in ONNX; use gbtree."
        )
    if not np.isnan(getattr(fitted, "missing", np.nan)):
        raise NotConvertible("XGBoost's `missing` must be NaN; leave it out.")
    link = XGBOOST_LINKS[objective]
    shape = model["learner_model_param"]
    if int(shape.get("num_target", 1)) > 1:
        raise NotConvertible("XGBoost was fitted on several targets; fit it on one.")
    targets = max(1, int(shape["num_class"]))
    score = np.broadcast_to(np.asarray(json.loads(shape["base_score"]), dtype=np.float32), targets)
    boosted = model["gradient_booster"]["model"]
    stages = _best_iteration(fitted, len(boosted["iteration_indptr"]) - 1)
    used = range(boosted["iteration_indptr"][stages])
    trees = [_xgboost_tree(boosted["trees"][at]) for at in used]
    return Ensemble(
        trees=[(boosted["tree_info"][at], tree) for at, tree in zip(used, trees, strict=True)],
        base=_margin(score, link).tolist(),
        link=link,
        comparison="<",
        reads="float32",
        dtype="float32",
        whole=frozenset(int(tree.feature[node]) for tree in trees for node in tree.members),
        zero_is_missing=True,
    )


def _best_iteration(fitted: Any, stages: int) -> int:
    try:
        return int(fitted.best_iteration) + 1
    except AttributeError:  # fitted without early stopping
        return stages


def _margin(score: NDArray[np.float32], link: Link) -> NDArray[np.float32]:
    """Convert XGBoost's base score, which is stored as a prediction, to the value that the sums start with."""
    if link == "sigmoid":
        return np.asarray(-np.log(np.float32(1) / score - np.float32(1)))
    return np.asarray(np.log(score)) if link == "exp" else score


def _xgboost_tree(tree: Mapping[str, Any]) -> Tree:
    if tree["tree_param"]["size_leaf_vector"] not in ("0", "1"):
        raise NotConvertible("XGBoost's multi_output_tree has no exact form in ONNX; use one_output_per_tree.")
    left, right = np.array(tree["left_children"]), np.array(tree["right_children"])
    missing_left = np.array(tree["default_left"]).astype(bool)
    parts = zip(tree["categories_nodes"], tree["categories_segments"], tree["categories_sizes"], strict=True)
    members = {node: [float(each) for each in tree["categories"][at : at + size]] for node, at, size in parts}
    for node in members:  # in XGBoost, the listed categories go right
        left[node], right[node], missing_left[node] = right[node], left[node], not missing_left[node]
    values = np.array(tree["split_conditions"], dtype=np.float32).astype(np.float64)
    return Tree(left, right, np.array(tree["split_indices"]), values, missing_left, values, members)


def _catboost(fitted: Any) -> Ensemble:
    """Read CatBoost's symmetric trees, which have one split for each level. CatBoost compares values in float32."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.json"
        fitted.save_model(str(file), format="json")
        model = json.loads(file.read_text())
    loss = fitted.get_all_params()["loss_function"].partition(":")[0]
    if loss not in CATBOOST_LINKS or "oblivious_trees" not in model:
        raise NotConvertible(f"CatBoost's loss {loss} with such trees has no exact form in ONNX; use SymmetricTree.")
    if model["features_info"].get("categorical_features"):
        raise NotConvertible("CatBoost's own categories have no form in ONNX; encode them before it (docs/export.md).")
    position = [each["flat_feature_index"] for each in model["features_info"]["float_features"]]
    above = {
        each["feature_index"]: each["nan_value_treatment"] == "AsTrue"
        for each in model["features_info"]["float_features"]
    }
    scale, start = model["scale_and_bias"]
    return Ensemble(
        trees=[
            (target, _catboost_tree(each, position, above, target, len(start), scale))
            for each in model["oblivious_trees"]
            for target in range(len(start))
        ],
        base=start,
        link=CATBOOST_LINKS[loss],
        reads="float32",
    )


def _catboost_tree(
    tree: Mapping[str, Any],
    position: Sequence[int],
    missing_above: Mapping[int, bool],
    target: int,
    targets: int,
    scale: float,
) -> Tree:
    """Build a tree whose root is the last split in CatBoost's list. Values above a border go to the right child."""
    splits = tree["splits"] or []
    if any(each["split_type"] != "FloatFeature" for each in splits):
        raise NotConvertible("CatBoost's own categories have no form in ONNX; encode them before it (docs/export.md).")
    inner = 2 ** len(splits) - 1
    levels = [splits[len(splits) - 1 - level] for level in range(len(splits)) for _ in range(2**level)]
    everything = np.arange(2 * inner + 1)
    leaf = everything >= inner
    weights = np.array(tree["leaf_values"], dtype=np.float64).reshape(-1, targets)[:, target] * scale
    padding = [0] * len(weights)
    return Tree(
        left=np.where(leaf, -1, 2 * everything + 1),
        right=np.where(leaf, -1, 2 * everything + 2),
        feature=np.array([position[each["float_feature_index"]] for each in levels] + padding),
        threshold=np.array([np.float32(each["border"]) for each in levels] + padding, dtype=np.float64),
        missing_left=np.array(
            [not missing_above[each["float_feature_index"]] for each in levels] + padding, dtype=bool
        ),
        value=np.concatenate([np.zeros(inner), weights]),
    )


READERS: dict[tuple[str, str], Callable[[Any], Ensemble]] = {
    ("lightgbm", "LGBMModel"): lambda fitted: _lightgbm(fitted.booster_),
    ("lightgbm", "Booster"): _lightgbm,
    ("xgboost", "XGBModel"): lambda fitted: _xgboost(fitted.get_booster(), fitted),
    ("xgboost", "Booster"): lambda fitted: _xgboost(fitted, fitted),
    ("catboost", "CatBoost"): _catboost,
    **{
        ("sklearn", each.__name__): read
        for classes, read in (
            (SINGLE_TREES, lambda fitted: _forest(fitted, [fitted])),
            (FORESTS, lambda fitted: _forest(fitted, fitted.estimators_)),
            (GRADIENT_BOOSTING, _gradient_boosting),
            (HISTOGRAM_BOOSTING, _histogram_boosting),
        )
        for each in classes
    },
}
"""The function that reads a model, by package and class name. A package is imported only if a model uses it."""
