"""Where training computes, and in which precision; no answer here depends on the processor that runs the tests."""

from collections.abc import Mapping
from functools import partial
from types import MappingProxyType

import pytest
import torch

from gender_classifier.errors import ParamsError
from gender_classifier.train.devices import cpu_multiplies_bf16, find_device, find_precision

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def no_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Start without oneDNN's limits, which the caller may have set."""
    for name in ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA"):
        monkeypatch.delenv(name, raising=False)


def pretend(monkeypatch: pytest.MonkeyPatch, capabilities: Mapping[str, object], mkldnn: bool = True) -> None:
    """Have PyTorch report another processor."""
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: MappingProxyType(dict(capabilities)), raising=False)
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: mkldnn)


def test_devices() -> None:
    assert find_device("cpu") == CPU
    assert find_device("auto").type in ("cpu", "cuda", "mps")
    for name in ("cuda:99", "gpu", "meta"):
        with pytest.raises(ParamsError, match=f"`train.device` is '{name}'"):
            find_device(name)


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [
        ({"architecture": "x86_64", "avx2": True}, "fp32"),
        ({"architecture": "x86_64", "avx2": True, "avx_vnni": True, "avx_ne_convert": True}, "fp32"),
        ({"architecture": "x86_64", "avx512_f": True, "avx512_vnni": True}, "fp32"),
        ({"architecture": "x86_64", "avx512_f": True, "avx512_bf16": True}, "bf16"),
        ({"architecture": "x86_64", "amx_tile": True, "amx_bf16": True}, "bf16"),
        ({"architecture": "x86_64", "amx_tile": True, "amx_bf16": False}, "fp32"),
        ({"architecture": "x86_64", "avx10_2": True}, "bf16"),
        ({"architecture": "arm64", "neon": True, "bf16": True, "sve_bf16": True}, "fp32"),
        ({}, "fp32"),
    ],
    ids=str,
)
def test_auto_is_what_the_processor_multiplies(
    capabilities: dict[str, object], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend(monkeypatch, capabilities)
    assert find_precision("auto", CPU) == expected
    assert [find_precision(name, CPU) for name in ("bf16", "fp32")] == ["bf16", "fp32"]  # by name: taken everywhere
    assert find_precision("auto", torch.device("mps")) == "fp32"


@pytest.mark.parametrize("name", ["ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA"])
@pytest.mark.parametrize(
    ("limit", "expected"),
    [
        *[(isa, False) for isa in ("SSE41", "AVX", "AVX2", "avx2", "AVX2_VNNI", "AVX2_VNNI_2")],
        *[(isa, False) for isa in ("AVX512_CORE", "AVX512_CORE_VNNI", "Avx512_Core")],
        *[(isa, True) for isa in ("AVX512_CORE_BF16", "AVX512_CORE_FP16", "AVX512_CORE_AMX", "AVX512_CORE_AMX_FP16")],
        *[(isa, True) for isa in ("AVX10_1_512", "AVX10_1_512_AMX_FP16", "AVX10_2", "ALL", "DEFAULT", "", "unknown")],
    ],
)
def test_a_limit_of_onednn_below_bf16_is_heeded(
    name: str, limit: str, expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend(monkeypatch, {"avx512_bf16": True, "amx_bf16": True})
    monkeypatch.setenv(name, limit)
    assert cpu_multiplies_bf16() is expected


def test_the_new_name_of_the_limit_wins_over_the_old_one_unless_it_is_empty(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, {"avx512_bf16": True})
    monkeypatch.setenv("DNNL_MAX_CPU_ISA", "AVX2")
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX512_CORE_BF16")
    assert cpu_multiplies_bf16()
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "")
    assert not cpu_multiplies_bf16()


def test_no_limit_gives_a_processor_what_it_has_not(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, {"avx2": True})
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX512_CORE_BF16")
    assert not cpu_multiplies_bf16()


def test_without_onednn_it_is_fp32(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, {"avx512_bf16": True}, mkldnn=False)
    assert not cpu_multiplies_bf16()


@pytest.mark.parametrize(
    ("probes", "expected"),
    [({}, False), ({"_is_avx512_bf16_supported": True}, True), ({"_is_amx_tile_supported": True}, True)],
    ids=str,
)
def test_an_older_torch_is_asked_by_its_probes(
    probes: dict[str, bool], expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend(monkeypatch, {})
    monkeypatch.delattr(torch.cpu, "get_capabilities")
    for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):
        monkeypatch.setattr(torch.cpu, name, partial(probes.get, name, False), raising=False)
    assert cpu_multiplies_bf16() is expected
