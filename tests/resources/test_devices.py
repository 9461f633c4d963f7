"""Devices: which there are, which of them the user left us, how many threads each may use."""

from __future__ import annotations

import pytest

from resources.devices import _visible, find_devices
from ts_forecast.cores import usable_cores
from ts_forecast.errors import DeviceError
from ts_forecast.settings import Settings

GPUS = [("GPU-aaaa",), ("MIG-b1", "MIG-b2"), ("GPU-cccc",)]


@pytest.mark.parametrize(
    ("chosen", "left"),
    [
        (None, ("GPU-aaaa", "MIG-b1", "MIG-b2", "GPU-cccc")),
        ("2,0", ("GPU-cccc", "GPU-aaaa")),
        ("1", ("MIG-b1", "MIG-b2")),
        ("GPU-c", ("GPU-cccc",)),
        ("MIG-b2, 0", ("MIG-b2", "GPU-aaaa")),
        ("0,0", ("GPU-aaaa",)),
        ("0,-1,2", ("GPU-aaaa",)),
        ("", ()),
        ("-1", ()),
    ],
)
def test_visible__follows_cuda_visible_devices(chosen: str | None, left: tuple[str, ...]) -> None:
    assert _visible(GPUS, chosen) == left


@pytest.mark.parametrize("chosen", ["7", "GPU-x"])
def test_visible__names_a_device_that_is_not_there(chosen: str) -> None:
    with pytest.raises(DeviceError, match=f"names {chosen}.*It has GPU-aaaa"):
        _visible(GPUS, chosen)


def test_find_devices__without_gpus_gives_slots_that_share_the_cores() -> None:
    devices = find_devices(Settings(enable_gpu=False, slots=2))

    assert [device.identifier for device in devices] == ["cpu-0", "cpu-1"]
    assert {device.environment["CUDA_VISIBLE_DEVICES"] for device in devices} == {""}
    assert sum(device.threads for device in devices) <= max(usable_cores(), 2)


def test_find_devices__takes_the_names_of_the_settings() -> None:
    devices = find_devices(Settings(devices=("one", "two")))

    assert [device.environment["CUDA_VISIBLE_DEVICES"] for device in devices] == ["one", "two"]


def test_find_devices__enable_gpu_false_wins_over_named_devices() -> None:
    devices = find_devices(Settings(enable_gpu=False, devices=("one",), slots=3))

    assert [device.is_gpu for device in devices] == [False] * 3


def test_find_devices__never_gives_a_slot_no_thread() -> None:
    devices = find_devices(Settings(enable_gpu=False, slots=1000))

    assert {device.threads for device in devices} == {1}
