"""Fitting a neural model: with smaller batches where memory runs out, onwards from a checkpoint.

The model is ``neural``'s, the parts that look on are ``checkpoint``, ``best_weights`` and
``progress``; here they are put around the library's ``fit``.
"""

from __future__ import annotations

import gc
import logging
import warnings
from collections.abc import Mapping
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ts_forecast.datasets.panel import Panel
from ts_forecast.errors import OutOfMemoryError, TrainingError, TsForecastError
from ts_forecast.pipeline import ModelSpec, Pipeline
from ts_forecast.training.allocator import kept_memory
from ts_forecast.training.batches import batch_sizes, halved, is_out_of_memory
from ts_forecast.training.best_weights import BestWeights
from ts_forecast.training.checkpoint import Checkpoint, read_checkpoint, remove_checkpoint
from ts_forecast.training.memory import memory_need, reserved_memory
from ts_forecast.training.midway import Midway
from ts_forecast.training.neural import (
    build_neural,
    fit_dataset,
    model_columns,
    quiet_libraries,
)
from ts_forecast.training.options import FitOptions
from ts_forecast.training.progress import Reporter

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class NeuralFit:
    """A fitted model and how the fit went.

    Attributes:
        model: a neuralforecast object, with the best weights where there was a validation.
        conduct: ``precision``, ``batch_sizes`` and ``halvings`` (how often memory ran out before); of a
            resumed fit ``resumed_at``; of one with a validation window ``best_step``, ``best_loss``.
    """

    model: Any
    conduct: dict[str, Any]


def fit_neural(
    pipeline: Pipeline,
    spec: ModelSpec,
    panel: Panel,
    mask: npt.NDArray[np.bool_] | None,
    options: FitOptions,
) -> NeuralFit:
    """Fit a neural model; where memory runs out, anew with half the batch sizes, down to a floor.

    A fit with smaller sizes begins at its first step: equal sizes give equal models, whether they were
    asked for or arrived at.

    Args:
        mask: rows to learn from; default: all.

    Raises:
        OutOfMemoryError: host memory does not suffice, or the smallest batches do not fit; with figures.
        TrainingError: the library refuses.
    """
    with kept_memory(), ExitStack() as held:
        return _fit_as_memory_allows(pipeline, spec, panel, mask, options, held)


def _fit_as_memory_allows(
    pipeline: Pipeline,
    spec: ModelSpec,
    panel: Panel,
    mask: npt.NDArray[np.bool_] | None,
    options: FitOptions,
    held: ExitStack,
) -> NeuralFit:
    """``fit_neural``; what is reserved is given back when ``held`` ends."""
    where = f"Pipeline {pipeline.name}, model {spec.name}"
    reached = _sizes_of_checkpoint(options)
    sizes: dict[str, int] = {}
    halvings = 0
    while True:
        model = build_neural(pipeline, _with_sizes(spec, sizes), panel.n_series)
        validated = validation_size(pipeline, spec, model) > 0
        used = batch_sizes(model, spec.kind.parameters, validated=validated)
        if reached.keys() == used.keys() and reached != used:
            # Killed after memory had run out: it goes on with what it had come down to.
            sizes, reached = reached, {}
            continue
        reached = {}
        if not halvings:
            held.enter_context(_reserved(pipeline, spec, panel, model, where, options))
        try:
            fit = _fit_once(pipeline, spec, panel, mask, model, used, options)
        except TsForecastError:
            # Of whoever looks on.
            _forget(options)
            raise
        except Exception as error:  # noqa: BLE001 — Lightning and torch raise all kinds
            if not is_out_of_memory(error):
                _forget(options)
                raise _failed(where, panel, error) from error
            reason = " ".join(str(error).split())
        else:
            _forget(options)
            fit.conduct.update(batch_sizes=used, halvings=halvings)
            return fit
        # Out of the except block: its traceback holds the tensors.
        del model
        _release()
        sizes = halved(used, panel.n_series if spec.kind.multivariate else 1) or {}
        if not sizes:
            _forget(options)
            raise OutOfMemoryError(
                f"{where}: out of memory with the smallest batches, {_words(used)}, on "
                f"{panel.n_series} series with {panel.n_rows} rows: {reason}.",
                remedy="Set a smaller input_size or model, raise GPU_MEMORY_LIMIT, or free memory.",
            )
        halvings += 1
        _log.warning(
            "%s: out of memory with %s; it begins anew with %s: %s",
            where, _words(used), _words(sizes), reason,
        )  # fmt: skip


def _reserved(
    pipeline: Pipeline, spec: ModelSpec, panel: Panel, model: Any, where: str, options: FitOptions
) -> AbstractContextManager[None]:
    n_columns = len(model_columns(pipeline, spec)) + 2
    need = memory_need(model, panel, n_columns, validation_size(pipeline, spec, model))
    return reserved_memory(need, where, wait=options.memory_wait)


def validation_size(pipeline: Pipeline, spec: ModelSpec, model: Any) -> int:
    """Steps before the fit's limit that are not learnt from.

    ``val_size``, or the horizon where the fit may stop early.
    """
    given = spec.parameters.get("val_size")
    if given is not None:
        return int(given)
    return pipeline.horizon if (model.early_stop_patience_steps or 0) > 0 else 0


def _fit_once(
    pipeline: Pipeline,
    spec: ModelSpec,
    panel: Panel,
    mask: npt.NDArray[np.bool_] | None,
    model: Any,
    sizes: dict[str, int],
    options: FitOptions,
) -> NeuralFit:
    from pytorch_lightning.callbacks import LambdaCallback

    dataset = fit_dataset(panel, pipeline, spec, mask)
    best = BestWeights()
    hooks = [LambdaCallback(on_validation_end=best.look)]
    checkpoint = None
    if options.scratch is not None:
        checkpoint = Checkpoint(options.scratch, sizes, options.checkpoint_seconds, best)
        hooks.append(
            LambdaCallback(on_train_start=checkpoint.restore, on_train_epoch_end=checkpoint.write)
        )
    if options.report is not None:
        reporter = Reporter(options.report, options.report_seconds)
        hooks.append(
            LambdaCallback(
                on_train_start=reporter.begin,
                on_train_batch_end=reporter.look,
                on_train_end=reporter.tell,
            )
        )
    if options.look is not None:
        midway = Midway(
            options.look_every,
            options.look,
            lambda: build_neural(pipeline, _with_sizes(spec, sizes), panel.n_series),
        )
        hooks.append(LambdaCallback(on_train_batch_end=midway.after_step))
    own = list(model.trainer_kwargs.get("callbacks") or [])
    # Not through the constructor: what it is given is saved with the model.
    model.trainer_kwargs["callbacks"] = [*own, *hooks]
    try:
        with warnings.catch_warnings():
            quiet_libraries()
            model.fit(dataset, val_size=validation_size(pipeline, spec, model))
    except SystemExit as end:
        # Lightning makes an exit with code 1 of a Ctrl-C.
        if isinstance(end.__context__, KeyboardInterrupt):
            raise KeyboardInterrupt from None
        raise
    finally:
        model.trainer_kwargs["callbacks"] = own
    best.put_back(model)
    # Forecasts are made in full precision.
    conduct: dict[str, Any] = {"precision": model.trainer_kwargs.pop("precision", "32-true")}
    if best.step is not None:
        conduct.update(best_step=best.step, best_loss=best.loss)
    if checkpoint is not None and checkpoint.resumed_at is not None:
        conduct["resumed_at"] = checkpoint.resumed_at
    return NeuralFit(model, conduct)


def _with_sizes(spec: ModelSpec, sizes: Mapping[str, int]) -> ModelSpec:
    return spec.model_copy(update={"parameters": {**spec.parameters, **sizes}}) if sizes else spec


def _sizes_of_checkpoint(options: FitOptions) -> dict[str, int]:
    """The sizes that a killed fit had come down to, where they are known."""
    state = None if options.scratch is None else read_checkpoint(options.scratch)
    return {} if state is None else dict(state["mark"])


def _forget(options: FitOptions) -> None:
    if options.scratch is not None:
        remove_checkpoint(options.scratch)


def _release() -> None:
    """Give back what a failed attempt held."""
    import torch

    gc.collect()
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.empty_cache()


def _failed(where: str, panel: Panel, error: Exception) -> TrainingError:
    return TrainingError(
        f"{where}: the fit failed on {panel.n_series} series with {panel.n_rows} rows: "
        f"{' '.join(str(error).split())}.",
        remedy="Check input_size against the length of the window, and the model's parameters.",
    )


def _words(sizes: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {size}" for name, size in sorted(sizes.items()))
