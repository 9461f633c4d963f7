"""A fit under adverse conditions: memory runs out, the process is killed, the loss rises again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.training.test_trainer import REPOSITORY, panel, pipeline
from ts_forecast.errors import OutOfMemoryError
from ts_forecast.training.checkpoint import read_checkpoint
from ts_forecast.training.library_patches import LazyWindows
from ts_forecast.training.options import FitOptions, FitProgress
from ts_forecast.training.trainer import FittedModel, fit_model, load_fitted

SIZES = {"batch_size": 2, "windows_batch_size": 128}
# Two epochs' batches in three series, dropout, and a validation that gets worse.
STOPPING = {
    "model": "NHITS",
    "parameters": {
        **SIZES,
        "max_steps": 60,
        "input_size": 14,
        "mlp_units": [[16, 16], [16, 16], [16, 16]],
        "dropout_prob_theta": 0.2,
        "learning_rate": 0.02,
        "early_stop_patience_steps": 4,
        "val_check_steps": 3,
        "val_size": 21,
    },
}
SMALL = {
    "model": "MLP",
    "parameters": {**SIZES, "max_steps": 4, "input_size": 14, "hidden_size": 8},
}

SCRIPT = """
import os, sys, time
sys.path.insert(0, {repository!r})
from pathlib import Path
from tests.training.test_neural_fit import STOPPING, panel, pipeline
from ts_forecast.training.options import FitOptions
from ts_forecast.training.trainer import fit_model

def report(progress):
    if progress.step >= 9:
        print("step", progress.step, flush=True)
        time.sleep(60)

pipe = pipeline(STOPPING)
options = FitOptions(Path(sys.argv[1]), checkpoint_seconds=0, report=report, report_seconds=0)
fit_model(pipe, pipe.models[0], panel(pipe), options)
"""


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """As in a slot; sums over several threads may differ in their last bits."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def weights(fitted: FittedModel) -> dict[str, bytes]:
    return {name: w.numpy().tobytes() for name, w in fitted.model.state_dict().items()}


def fit(model: dict[str, Any], options: FitOptions | None = None, **changes: Any) -> FittedModel:
    pipe = pipeline(model, **changes)
    return fit_model(pipe, pipe.models[0], panel(pipe), options)


def exhausted_above(windows: int, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Let torch's allocator really fail on batches of more windows; returns the sizes asked for."""
    import torch

    gather, asked = LazyWindows.__getitem__, []

    def getitem(self: LazyWindows, index: Any) -> Any:
        asked.append(len(index))
        if len(index) > windows:
            torch.empty(2**56)
        return gather(self, index)

    monkeypatch.setattr(LazyWindows, "__getitem__", getitem)
    return asked


def test_fit_model__out_of_memory__goes_on_with_half_and_says_what_it_used(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    smaller = {**SMALL["parameters"], "batch_size": 1, "windows_batch_size": 32}
    asked_for = fit({**SMALL, "parameters": smaller})
    asked = exhausted_above(50, monkeypatch)

    fitted = fit(SMALL)

    assert asked == [128, 64, 32, 32, 32, 32]
    assert fitted.conduct["halvings"] == 2
    assert fitted.conduct["batch_sizes"]["windows_batch_size"] == 32
    assert fitted.conduct["batch_sizes"]["batch_size"] == 1
    assert "out of memory with" in caplog.text
    assert weights(fitted) == weights(asked_for)
    assert fitted.curves == asked_for.curves


def test_fit_model__out_of_memory_at_the_floor__fails_with_the_figures(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked = exhausted_above(0, monkeypatch)

    with pytest.raises(
        OutOfMemoryError, match=r"windows_batch_size 32, on 3 series with"
    ) as caught:
        fit(SMALL, FitOptions(scratch=tmp_path / "fit"))

    assert asked == [128, 64, 32]
    assert "GPU_MEMORY_LIMIT" in caught.value.remedy
    assert not (tmp_path / "fit").exists()


def test_fit_model__validation_gets_worse__keeps_the_best_weights() -> None:
    fitted = fit(STOPPING)

    curve = fitted.curves["valid_loss"]
    best = min(curve, key=lambda point: point[1])
    assert len(fitted.curves["train_loss"]) < STOPPING["parameters"]["max_steps"]
    assert best[0] < curve[-1][0]
    assert fitted.conduct["best_step"] == best[0]
    # Fitted for just as many steps, the last weights are those of the best step.
    steps = {"max_steps": best[0], "early_stop_patience_steps": -1, "num_lr_decays": 0}
    again = fit({**STOPPING, "parameters": {**STOPPING["parameters"], **steps}})
    assert weights(fitted) == weights(again)


def test_fit_model__killed__resumes_and_ends_at_the_same_weights(tmp_path: Path) -> None:
    scratch = tmp_path / "fit"
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT.format(repository=str(REPOSITORY)), str(scratch)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"},
    )
    assert process.stdout is not None
    reached = process.stdout.readline().split()
    process.send_signal(signal.SIGKILL)
    process.wait(30)
    process.stdout.close()
    assert reached == ["step", "9"]
    assert read_checkpoint(scratch) is not None

    resumed = fit(STOPPING, FitOptions(scratch=scratch))
    whole = fit(STOPPING)

    # The ninth step is the first of an epoch of two.
    assert resumed.conduct["resumed_at"] == 8
    assert weights(resumed) == weights(whole)
    assert resumed.curves == whole.curves
    assert resumed.conduct["best_step"] == whole.conduct["best_step"]
    assert not scratch.exists()


def interrupted(scratch: Path, monkeypatch: pytest.MonkeyPatch, step: int = 3) -> None:
    def report(progress: FitProgress) -> None:
        if progress.step >= step:
            raise KeyboardInterrupt

    options = FitOptions(scratch, checkpoint_seconds=0, report=report, report_seconds=0)
    with pytest.raises(KeyboardInterrupt):
        fit(SMALL, options)
    assert (scratch / "fit.ckpt").exists()


def test_fit_model__killed_after_halving__goes_on_with_the_smaller_batches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = exhausted_above(50, monkeypatch)
    # An epoch of three batches of one series.
    interrupted(tmp_path, monkeypatch, step=4)
    asked.clear()

    fitted = fit(SMALL, FitOptions(tmp_path))

    assert asked == [32]
    assert fitted.conduct["resumed_at"] == 3


@pytest.mark.parametrize("damage", ["cut", "of another kind"])
def test_fit_model__damaged_checkpoint__begins_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    interrupted(tmp_path, monkeypatch)
    file = tmp_path / "fit.ckpt"
    file.write_bytes(file.read_bytes()[:1000] if damage == "cut" else b"no checkpoint")

    fitted = fit(SMALL, FitOptions(tmp_path))

    assert "resumed_at" not in fitted.conduct
    assert "cannot be read, the fit begins anew" in caplog.text


def test_fit_model__report__tells_every_point_once() -> None:
    told: list[FitProgress] = []

    fitted = fit(SMALL, FitOptions(report=told.append, report_seconds=0))

    assert [progress.step for progress in told] == [1, 2, 3, 4, 4]
    points = [point for progress in told for point in progress.points]
    assert points == [("train_loss", *point) for point in fitted.curves["train_loss"]]
    assert "step 2 of 4, train_loss" in str(told[1])


def test_fit_model__report__is_not_told_more_often_than_asked() -> None:
    told: list[FitProgress] = []

    fit(SMALL, FitOptions(report=told.append, report_seconds=3600))

    assert [len(progress.points) for progress in told] == [4]


def test_fit_model__auto_precision_on_cpu__is_full(tmp_path: Path) -> None:
    fitted = fit(SMALL, precision="auto")
    fitted.save(tmp_path)

    assert fitted.conduct["precision"] == "32-true"
    assert weights(fitted) == weights(fit(SMALL))
    assert "precision" not in load_fitted(tmp_path, fitted.spec).model.trainer_kwargs
