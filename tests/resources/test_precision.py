"""What ``precision: auto`` means, said alike by a step and by whoever looks at its fingerprint."""

from __future__ import annotations

import os
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resources import devices
from resources.confinement import confine
from resources.devices import Device, Gpu, find_devices
from tests.training.test_trainer import NHITS, panel, pipeline
from ts_forecast.errors import DeviceError
from ts_forecast.quarters import Quarter
from ts_forecast.settings import Settings
from ts_forecast.training import device
from ts_forecast.training.device import resolved_precision
from ts_forecast.training.quarter import training_fingerprint

OLD = Gpu(("GPU-old",), (7, 5))
NEW = Gpu(("GPU-new",), (9, 0))
SLICED = Gpu(("MIG-1", "MIG-2"), (8, 0))


@pytest.fixture(autouse=True)
def nothing_agreed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "_AGREED", [])
    # What other tests of this process left for their children.
    for name in ("TS_FORECAST_DEVICES", "ENABLE_GPU"):
        monkeypatch.delenv(name, raising=False)


def host(monkeypatch: pytest.MonkeyPatch, *gpus: Gpu, **given: Any) -> tuple[Device, ...]:
    monkeypatch.setattr(devices, "_nvml_gpus", lambda: list(gpus))
    return find_devices(Settings(_env_file=None, **given), {})


@pytest.mark.parametrize(
    ("gpus", "given", "expected"),
    [
        ((NEW,), {}, "bf16-mixed"),
        ((SLICED, NEW), {}, "bf16-mixed"),
        ((OLD,), {}, "16-mixed"),
        ((NEW, OLD), {}, "16-mixed"),
        ((), {}, "32-true"),
        ((NEW,), {"enable_gpu": False}, "32-true"),
        ((NEW, OLD), {"devices": ("GPU-new",)}, "bf16-mixed"),
        ((NEW, OLD), {"devices": ("0", "1")}, "16-mixed"),
        ((NEW,), {"devices": ("GPU-new", "made-up")}, "32-true"),
        ((NEW,), {"devices": ("7",)}, "32-true"),
    ],
)
def test_find_devices__mixed_precision__is_what_all_of_them_have(
    monkeypatch: pytest.MonkeyPatch, gpus: tuple[Gpu, ...], given: dict[str, Any], expected: str
) -> None:
    assert {one.mixed for one in host(monkeypatch, *gpus, **given)} == {expected}


def test_find_devices__named_beside_a_broken_driver__are_taken_at_their_word(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def broken() -> list[Gpu]:
        raise DeviceError("no answer")

    monkeypatch.setattr(devices, "_nvml_gpus", broken)
    named = find_devices(Settings(_env_file=None, devices=("one",)), {})

    assert [(one.identifier, one.mixed) for one in named] == [("one", "32-true")]
    with pytest.raises(DeviceError):
        find_devices(Settings(_env_file=None), {})


@given(gpus=st.lists(st.tuples(st.integers(5, 12), st.integers(0, 9)), min_size=1, max_size=5))
def test_fingerprint__of_a_looker_on__is_that_of_every_step(gpus: list[tuple[int, int]]) -> None:
    """Whichever device a step gets, and though the looker-on has none."""
    with pytest.MonkeyPatch.context() as patch:
        found = host(patch, *(Gpu((f"GPU-{n}",), gpu) for n, gpu in enumerate(gpus)))
        pipe = pipeline(NHITS, precision="auto")
        data, quarter = panel(pipe), Quarter(2015, 3)
        # Forgets what a step leaves in the environment.
        patch.setenv("CUDA_VISIBLE_DEVICES", "")
        patch.setattr(device, "_AGREED", [])

        def mark(**where: Any) -> str:
            return training_fingerprint(pipe, pipe.models[0], quarter, data, **where)

        seen_from_outside = mark(precision=found[0].mixed)
        on_cpu = mark()

        patch.setattr("torch.cuda.is_available", lambda: True)
        patch.setattr("torch.set_num_threads", lambda _: None)
        patch.setattr(os, "environ", dict(os.environ))
        of_steps = set()
        for one in found:
            confine(one, Settings(_env_file=None))
            of_steps.add(mark())

    assert of_steps == {seen_from_outside}
    assert on_cpu not in of_steps


def test_resolved_precision__full__asks_nobody() -> None:
    assert resolved_precision("full", "bf16-mixed") == "32-true"


def test_resolved_precision__on_cpu__is_full() -> None:
    assert resolved_precision("auto") == "32-true"
