"""Neural models: from an entry of the pipeline file to a neuralforecast object, and its datasets.

Building only; fitting is ``trainer``, forecasting ``predictions.rolling``.
"""

from __future__ import annotations

import logging
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from ts_forecast.errors import TrainingError
from ts_forecast.pipeline import ModelSpec, Pipeline
from ts_forecast.pipeline_model import OWN_PARAMETERS
from ts_forecast.training.calibration import gives_quantiles, has_conformal_intervals
from ts_forecast.training.device import resolved_precision, trainer_arguments
from ts_forecast.training.library_patches import apply_patches

if TYPE_CHECKING:
    from neuralforecast.tsdataset import TimeSeriesDataset

    from ts_forecast.datasets.panel import Panel

MASK = "available_mask"

# TimeLLM fetches its language model by name while it is constructed; the library refuses to save it.
_UNSAVEABLE = {"TimeLLM"}


def build_neural(pipeline: Pipeline, spec: ModelSpec, n_series: int) -> Any:
    """The model object, not yet fitted.

    The loss is MQLoss over the pipeline's quantiles; MAE where it has no levels, and of a model that
    gives points and is calibrated. Where the file says
    nothing, a window holds two seasons or two horizons, whichever is longer, and series shorter than a
    window are padded.

    Raises:
        TrainingError: the library refuses the parameters, or the model cannot give quantiles; names
            pipeline and model.
    """
    import neuralforecast.models as library
    from neuralforecast.losses.pytorch import MAE, MQLoss

    quiet_libraries()
    apply_patches()
    _refuse_unusable(pipeline, spec)
    exogenous = pipeline.exogenous_of(spec)
    quantiles = pipeline.quantiles
    is_of_quantiles = bool(quantiles) and gives_quantiles(spec)
    arguments: dict[str, Any] = {
        "h": pipeline.horizon,
        "loss": MQLoss(quantiles=list(quantiles)) if is_of_quantiles else MAE(),
        "random_seed": pipeline.seed,
        "alias": spec.name,
        **trainer_arguments(),
        **{name: value for name, value in spec.parameters.items() if name not in OWN_PARAMETERS},
    }
    precision = resolved_precision(pipeline.precision)
    if precision != "32-true":
        arguments["precision"] = precision
    arguments.setdefault("input_size", 2 * max(pipeline.season, pipeline.horizon))
    if "start_padding_enabled" in spec.kind.parameters:
        arguments.setdefault("start_padding_enabled", True)
    if spec.kind.multivariate:
        arguments["n_series"] = n_series
    for role, columns in (
        ("futr", exogenous.all_future),
        ("hist", exogenous.historic),
        ("stat", exogenous.static),
    ):
        if columns:
            arguments[f"{role}_exog_list"] = list(columns)
    try:
        return getattr(library, spec.model)(**arguments)
    except Exception as error:  # noqa: BLE001 — the library's constructors raise all kinds
        raise TrainingError(
            f"Pipeline {pipeline.name}, model {spec.name}: {spec.model} refuses its parameters: "
            f"{' '.join(str(error).split())}.",
            remedy="Correct `parameters` of the model in the pipeline file.",
        ) from error


def _refuse_unusable(pipeline: Pipeline, spec: ModelSpec) -> None:
    where = f"Pipeline {pipeline.name}, model {spec.name}: {spec.model}"
    if spec.model in _UNSAVEABLE:
        raise TrainingError(
            f"{where} cannot be stored by neuralforecast, so no quarter could be forecast with it.",
            remedy="Choose another model.",
        )
    is_given = gives_quantiles(spec) or has_conformal_intervals(pipeline, spec)
    if pipeline.quantiles and not is_given:
        is_recurrent = bool(spec.parameters.get("recurrent"))
        what = f"{where}{' with recurrent: true' if is_recurrent else ''}"
        raise TrainingError(
            f"{what} gives point forecasts only, and the pipeline asks for `levels`.",
            remedy="Set `intervals: conformal`, or choose a model that is trained on quantiles.",
        )


def window_length(model: Any) -> int:
    """Steps of history that one forecast of the model reads."""
    return int(max(model.input_size, getattr(model, "inference_input_size", 0) or 0))


def model_columns(pipeline: Pipeline, spec: ModelSpec) -> list[str]:
    """The temporal exogenous columns that a model reads, in the order of its datasets."""
    exogenous = pipeline.exogenous_of(spec)
    return [*exogenous.all_future, *exogenous.historic]


def fit_dataset(
    panel: Panel,
    pipeline: Pipeline,
    spec: ModelSpec,
    mask: npt.NDArray[np.bool_] | None = None,
) -> TimeSeriesDataset:
    """A filled panel as the library's dataset, without a detour through frames.

    Args:
        mask: rows to learn from; default: all.
    """
    names = model_columns(pipeline, spec)
    values = np.empty((panel.n_rows, len(names) + 2), dtype=np.float32)
    values[:, 0] = panel.y
    for place, name in enumerate(names, start=1):
        values[:, place] = panel.exogenous[:, panel.columns.index(name)]
    values[:, -1] = 1.0 if mask is None else mask
    return as_dataset(values, names, panel.indptr, static_values(panel, pipeline, spec))


def static_values(
    panel: Panel, pipeline: Pipeline, spec: ModelSpec
) -> tuple[npt.NDArray[np.float32], list[str]] | None:
    """The static columns that a model reads, a row a series; None if it reads none."""
    names = list(pipeline.exogenous_of(spec).static)
    if not names or panel.static is None:
        return None
    return panel.static[names].to_numpy(dtype=np.float32), names


def as_dataset(
    values: npt.NDArray[np.floating[Any]],
    names: list[str],
    indptr: npt.NDArray[np.int64],
    static: tuple[npt.NDArray[np.float32], list[str]] | None,
) -> TimeSeriesDataset:
    """A dataset of ``y, *names, available_mask`` columns, series by series."""
    from neuralforecast.tsdataset import TimeSeriesDataset

    return TimeSeriesDataset(
        temporal=np.ascontiguousarray(values, dtype=np.float32),
        temporal_cols=pd.Index(["y", *names, MASK]),
        indptr=np.asarray(indptr),
        y_idx=0,
        static=None if static is None else static[0],
        static_cols=None if static is None else pd.Index(static[1]),
    )


def quiet_libraries() -> None:
    """Keep Lightning's advice to notebook users out of our logs."""
    for name in ("pytorch_lightning", "lightning", "lightning.pytorch", "lightning_fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    logging.getLogger("pytorch_lightning.utilities.rank_zero").setLevel(logging.ERROR)
    for message in (
        ".*does not have many workers.*",
        ".*The number of training batches.*",
        ".*Starting from v1.9.0.*",
        ".*val_check_steps is greater than max_steps.*",
        ".*GPU available but not used.*",
        ".*isinstance\\(treespec, LeafSpec\\).*",
    ):
        warnings.filterwarnings("ignore", message=message)
