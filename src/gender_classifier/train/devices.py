"""Where training computes, and in which precision."""

import os

import torch

from gender_classifier.errors import ParamsError

_BELOW_BF16 = {"SSE41", "AVX", "AVX2", "AVX2_VNNI", "AVX2_VNNI_2", "AVX512_CORE", "AVX512_CORE_VNNI"}
"""Values of ``ONEDNN_MAX_CPU_ISA`` that leave no product of bf16; AVX2_VNNI_2 has only the conversions from and to it.

https://uxlfoundation.github.io/oneDNN/dev_guide_cpu_dispatcher_control.html
"""


def find_device(name: str) -> torch.device:
    """Turn ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps`` into a device that is there.

    Raises:
        ParamsError: no such device, or none on this machine.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0].rstrip(".")
        raise ParamsError(
            f"params.yaml: `train.device` is {name!r}, which this machine cannot use ({reason}); choose auto or cpu"
        ) from None
    if device.type not in ("cpu", "cuda", "mps"):
        raise ParamsError(f"params.yaml: `train.device` is {name!r}; choose auto, cpu, cuda, cuda:N or mps")
    return device


def find_precision(name: str, device: torch.device) -> str:
    """Turn ``auto`` into ``bf16`` where the device multiplies it in hardware, else into ``fp32``.

    ``bf16`` by name is taken everywhere; a processor that only emulates it is several times slower than in fp32.
    """
    if name != "auto":
        return name
    if device.type == "cuda":
        return "bf16" if torch.cuda.get_device_capability(device)[0] >= 8 else "fp32"
    return "bf16" if device.type == "cpu" and cpu_multiplies_bf16() else "fp32"


def cpu_multiplies_bf16() -> bool:
    """Return whether PyTorch trains in bf16 on this processor without emulating it.

    This needs oneDNN, a processor with AVX512_BF16, AMX or AVX10.2, and an environment whose ``ONEDNN_MAX_CPU_ISA`` (or
    ``DNNL_MAX_CPU_ISA``, its old name) does not limit oneDNN to older instructions. It is False for ARM processors
    with bf16: oneDNN has fast kernels for the forward pass only there.
    """
    if not torch.backends.mkldnn.is_available() or _find_isa_limit() in _BELOW_BF16:  # type: ignore[no-untyped-call]
        return False
    return any(_read_capabilities().get(name) for name in ("avx512_bf16", "amx_bf16", "avx10_2"))


def _read_capabilities() -> dict[str, object]:
    """Return what the processor has, by PyTorch's names."""
    if hasattr(torch.cpu, "get_capabilities"):
        return dict(torch.cpu.get_capabilities())
    # Before torch 2.12; absent from some builds for other processors than x86.
    probes = {"avx512_bf16": "_is_avx512_bf16_supported", "amx_bf16": "_is_amx_tile_supported"}
    return {name: getattr(torch.cpu, probe, bool)() for name, probe in probes.items()}


def _find_isa_limit() -> str:
    """Return the limit as oneDNN reads it: in any case, the new name first, an empty value as none."""
    limit = os.environ.get("ONEDNN_MAX_CPU_ISA") or os.environ.get("DNNL_MAX_CPU_ISA") or ""
    return limit.upper()
