"""Record bundles, their verdicts and their releases in MLflow. The pipeline never reads these records."""

import fcntl
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mlflow
import mlflow.onnx
import numpy as np
import onnx
import onnxruntime
from mlflow.entities import Metric, Param, Run, RunStatus
from mlflow.environment_variables import MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT, MLFLOW_TRACKING_URI
from mlflow.exceptions import MlflowException
from mlflow.models import ModelSignature
from mlflow.types import Schema, TensorSpec
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID
from sqlalchemy.exc import SQLAlchemyError

from slipway import artifacts, bundle
from slipway.artifacts import Evaluation, Verdict
from slipway.config import Params, has_secret
from slipway.errors import CheckFailed, InputError
from slipway.integrations import process
from slipway.integrations.storage import without_secrets
from slipway.provenance import TAGS, Provenance
from slipway.release.component import Image
from slipway.release.model_card import CARD, model_card

if TYPE_CHECKING:  # `tune` imports training packages, which most verbs do not need
    from slipway.integrations.search_storage import Trial
    from slipway.pipeline.tune import Search

BUNDLE_TAG = TAGS["bundle"]
IMAGE_TAG = "slipway.image"
DIGEST_TAG = "slipway.image_digest"
SEARCH_TAG = "slipway.search"
TRIAL_TAG = "slipway.trial"
ERROR_TAG = "slipway.error"
DATABASE = Path("mlflow.db")
SQLITE = "sqlite:///"
REPORT_FILES = (artifacts.EVALUATION, artifacts.VERDICT, artifacts.VALIDATION, artifacts.PARITY, artifacts.QUARANTINE)


@dataclass(frozen=True)
class Recorded:
    """The MLflow run that records a bundle or a search. `already` is True if this call recorded nothing new."""

    run_id: str
    already: bool


def record(params: Params) -> Recorded:
    """Record the pipeline's bundle as an MLflow run if it has no run yet. Complete an interrupted run.

    Raises CheckFailed if metrics/verdict.json is the verdict on another bundle, and InputError if the registry cannot
    be reached.
    """
    verdict = Verdict.read(artifacts.VERDICT)
    evaluation = Evaluation.read(artifacts.EVALUATION)
    model = bundle.load_bundle(artifacts.BUNDLE)
    if model.hash != verdict.challenger_bundle:
        raise CheckFailed(
            f"{artifacts.BUNDLE} is {model.hash}, but {artifacts.VERDICT} is for {verdict.challenger_bundle}; "
            "run `dvc repro` first."
        )
    for file in REPORT_FILES:
        if not file.is_file():
            raise InputError(f"{file} is missing; run `dvc repro`.")
    with _registry():
        experiment = mlflow.set_experiment(params.record.experiment)
        earlier = _find(experiment.experiment_id, model.hash)
        if earlier and earlier.info.status == RunStatus.to_string(RunStatus.FINISHED):
            return Recorded(earlier.info.run_id, already=True)
        with mlflow.start_run(run_id=earlier.info.run_id if earlier else None, run_name=model.hash[:12]) as run:
            mlflow.set_tag(BUNDLE_TAG, model.hash)
            _log(model, params, evaluation, verdict)
    return Recorded(run.info.run_id, already=False)


def record_search(params: Params, search: "Search") -> Recorded:
    """Record a search of `slipway tune` as an MLflow run, with a nested run for each trial. Add only missing trials.

    Raises InputError if the registry cannot be reached.
    """
    with _registry() as client:
        experiment = mlflow.set_experiment(params.record.experiment).experiment_id
        (parent, *_) = client.search_runs([experiment], f"tags.`{SEARCH_TAG}` = '{search.name}'") or [
            client.create_run(experiment, tags={SEARCH_TAG: search.name}, run_name=f"tune {search.name[:12]}")
        ]
        number = parent.info.run_id
        children = client.search_runs([experiment], f"tags.`{MLFLOW_PARENT_RUN_ID}` = '{number}'")
        interrupted = [run for run in children if run.info.status == RunStatus.to_string(RunStatus.RUNNING)]
        for run in interrupted:
            client.delete_run(run.info.run_id)
        recorded = {run.data.tags[TRIAL_TAG] for run in children if run not in interrupted}
        missing = [(str(index), each) for index, each in enumerate(search.trials) if str(index) not in recorded]
        for index, trial in missing:
            tags = {MLFLOW_PARENT_RUN_ID: number, TRIAL_TAG: index, ERROR_TAG: trial.outcome.error}
            child = client.create_run(experiment, tags=tags, run_name=f"trial {index}").info.run_id
            client.log_batch(child, _losses({search.loss: trial}), _settings(trial))
            client.set_terminated(child, "FAILED" if trial.outcome.loss is None else "FINISHED")
        client.log_batch(number, _losses({search.loss: search.best, f"current_{search.loss}": search.current}))
        for setting in _settings(search.best):
            client.set_tag(number, setting.key, setting.value)  # a tag, because MLflow cannot change a parameter
        client.set_terminated(number)
    return Recorded(number, already=not missing)


def _losses(trials: "Mapping[str, Trial]") -> list[Metric]:
    now = int(time.time() * 1000)
    known = {name: trial.outcome.loss for name, trial in trials.items()}
    return [Metric(name, loss, now, 0) for name, loss in known.items() if loss is not None]


def _settings(trial: "Trial") -> list[Param]:
    return [Param(f"train.settings.{name}", str(value)) for name, value in trial.settings.items()]


def tracking_uri() -> str:
    """Return MLFLOW_TRACKING_URI. If it is not set, return the URI of the file mlflow.db in this repository."""
    return MLFLOW_TRACKING_URI.get() or f"{SQLITE}{DATABASE}"


def is_configured(environ: Mapping[str, str]) -> bool:
    """Return True if MLFLOW_TRACKING_URI is set, or if the file mlflow.db exists in this repository."""
    return bool(environ.get("MLFLOW_TRACKING_URI")) or DATABASE.is_file()


def register(params: Params, provenance: Provenance, image: Image) -> str:
    """Create a registered model version for a released bundle, or update its tags. Return the version number.

    Raises CheckFailed if the bundle was never recorded, and InputError if the registry cannot be reached.
    """
    name, bundle_hash = params.record.experiment, provenance.bundle
    tags = provenance.tags() | {IMAGE_TAG: f"{image.name}:{image.tag}", DIGEST_TAG: image.digest or ""}
    with _registry() as client:
        version = _version(client, name, bundle_hash)
        if version is None:
            experiment = client.get_experiment_by_name(params.record.experiment)
            run = _find(experiment.experiment_id, bundle_hash) if experiment else None
            if run is None:
                registry = without_secrets(tracking_uri())
                raise CheckFailed(f"No run in {registry} has bundle {bundle_hash}; write one with `slipway record`.")
            uri = f"runs:/{run.info.run_id}/model"
            made = mlflow.register_model(uri, name, await_registration_for=0, tags={BUNDLE_TAG: bundle_hash})
            version = str(made.version)
        for key, value in tags.items():
            client.set_model_version_tag(name, version, key, value)
        run = client.get_model_version(name, version).run_id
        client.update_model_version(name, version, f"Model card: artifact {CARD} of run {run}.")
    return version


def version_of(params: Params, bundle_hash: str) -> str | None:
    """Return the number of the model version that is registered for a bundle. Return None without such a version."""
    with _registry() as client:
        return _version(client, params.record.experiment, bundle_hash)


def tags_of(params: Params, version: str) -> dict[str, str]:
    """Return the tags of a model version, and its aliases under the key `aliases`.

    Return {} if the version does not exist.
    """
    with _registry() as client:
        try:
            found = client.get_model_version(params.record.experiment, version)
        except MlflowException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                return {}
            raise
        return {**found.tags, "aliases": ", ".join(found.aliases)}


def point(params: Params, alias: str, version: str) -> None:
    """Set an alias such as `champion` to a version of the registered model."""
    with _registry() as client:
        client.set_registered_model_alias(params.record.experiment, alias, version)


@contextmanager
def _registry() -> Iterator[mlflow.MlflowClient]:
    """Yield a client of the MLflow registry. Raise InputError if the registry does not answer."""
    uri = tracking_uri()
    if has_secret(uri):
        MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT.set(True)
    mlflow.set_tracking_uri(uri)
    try:
        with _alone(uri):
            client = mlflow.MlflowClient()
            client.search_experiments(max_results=1)
        yield client
    except (MlflowException, SQLAlchemyError) as error:
        words = str(error).splitlines()[0]
        raise InputError(
            without_secrets(f"The registry {uri} cannot be used ({words}); check MLFLOW_TRACKING_URI.")
        ) from None


@contextmanager
def _alone(uri: str) -> Iterator[None]:
    """Lock the registry against other processes of Slipway until the block ends, if the registry is a database file.

    MLflow creates tables when it opens the file, and fails if another process creates them at the same time.
    """
    if not uri.startswith(SQLITE):
        yield
        return
    folder = Path(uri.removeprefix(SQLITE)).parent
    folder.mkdir(parents=True, exist_ok=True)  # as MLflow does
    opened = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(opened, fcntl.LOCK_EX)
        yield
    finally:
        os.close(opened)


def _version(client: mlflow.MlflowClient, name: str, bundle_hash: str) -> str | None:
    found = client.search_model_versions(f"name = '{name}' and tags.`{BUNDLE_TAG}` = '{bundle_hash}'")
    return min((str(each.version) for each in found), key=int, default=None)


def _find(experiment: str, bundle_hash: str) -> Run | None:
    runs = mlflow.MlflowClient().search_runs(
        [experiment], f"tags.`{BUNDLE_TAG}` = '{bundle_hash}'", order_by=["attributes.start_time ASC"]
    )
    finished = [run for run in runs if run.info.status == RunStatus.to_string(RunStatus.FINISHED)]
    return next(iter(finished or runs), None)


def _log(model: bundle.Bundle, params: Params, evaluation: Evaluation, verdict: Verdict) -> None:
    provenance = Provenance(
        bundle=model.hash,
        data=artifacts.data_hash(),
        commit=process.run("git", "rev-parse", "HEAD"),
        verdict=verdict.verdict,
        reason=verdict.reason,
    )
    clean = not process.run("git", "status", "--porcelain", "--untracked-files=no")
    champion = {"slipway.champion": verdict.champion_bundle or "none", "slipway.git_clean": str(clean).lower()}
    mlflow.set_tags(provenance.tags() | champion)
    mlflow.log_params(_flat(params.model_dump(include={"task", "split", "train"})))
    mlflow.log_metrics(evaluation.challenger.metrics)
    mlflow.log_metrics({f"baseline_{name}": value for name, value in evaluation.baseline.metrics.items()})
    if evaluation.champion:
        mlflow.log_metrics({f"champion_{name}": value for name, value in evaluation.champion.metrics.items()})
    for file in REPORT_FILES:
        mlflow.log_artifact(str(file), "report")
    mlflow.log_artifacts(str(artifacts.PLOTS), "report/plots")
    mlflow.log_artifacts(str(model.path), "bundle")
    mlflow.log_text(model_card(model, provenance), CARD)
    mlflow.onnx.log_model(
        onnx.load(model.path / bundle.MODEL),
        name="model",
        signature=_signature(model.schema),
        metadata={BUNDLE_TAG: model.hash},
        onnx_execution_providers=["CPUExecutionProvider"],
        pip_requirements=[f"onnxruntime=={onnxruntime.__version__}", f"numpy=={np.__version__}"],
    )


def _signature(schema: bundle.Schema) -> ModelSignature:
    inputs = []
    if schema.numbers:
        inputs.append(TensorSpec(np.dtype(np.float32), (-1, len(schema.numbers)), "numbers"))
    if schema.categories:
        inputs.append(TensorSpec(np.dtype(object), (-1, len(schema.categories)), "categories"))
    inputs += [TensorSpec(each.dtype, (-1, *each.shape), name) for name, each in schema.arrays.items()]
    width = len(schema.classes) if schema.classes else 1
    return ModelSignature(Schema(inputs), Schema([TensorSpec(np.dtype(np.float32), (-1, width), "prediction")]))


def _flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        name = f"{prefix}{key}"
        flat |= _flat(value, f"{name}.") if isinstance(value, dict) else {name: value}
    return flat
