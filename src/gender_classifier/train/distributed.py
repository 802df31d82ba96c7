"""Several processes that train one model: PyTorch's launcher, and the few exchanges that the training needs.

The launcher is ``torchrun`` (``torch.distributed.run``). It pickles its own state and unpickles what it finds in its
store: whoever can write there runs code. On one machine the store is therefore a file in a folder that only the user
can enter, and gloo and NCCL listen on the loopback interface alone. On several machines the user chooses the endpoint
and must keep others away from it (docs/distributed.md). The training itself sends tensors only.
"""

import logging
import os
import shlex
import socket
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray

from gender_classifier.common.logs import quiet_loggers
from gender_classifier.common.threads import count_cores
from gender_classifier.errors import ParamsError
from gender_classifier.model.network import has_batch_norm

OPTIONS_VARIABLE = "GENDER_CLASSIFIER_TORCHRUN"
"""More options of torchrun for this machine, for a training on several: ``--nnodes 2 --rdzv-endpoint host:29500``."""
_STORE_VARIABLE = "GENDER_CLASSIFIER_STORE"
"""Of the processes on one machine: the file through which they find each other."""


@dataclass(frozen=True)
class World:
    """``size`` processes, of which this one is number ``rank``; ``local_rank`` counts those of its machine."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0

    def share(self, count: int) -> slice:
        """Return this process's part of ``count`` rows: consecutive, an even number but in the last part."""
        pairs = -(-count // 2)
        start, stop = (2 * (pairs * rank // self.size) for rank in (self.rank, self.rank + 1))
        return slice(min(start, count), min(stop, count))


def is_launched() -> bool:
    """Whether torchrun has started this process."""
    return "TORCHELASTIC_RUN_ID" in os.environ


def launch(script: str, processes: int) -> int:
    """Run ``script`` in several processes with torchrun, which stops all when one fails; return the exit status.

    Args:
        script: a Python file; it finds itself :func:`is_launched`.
        processes: on this machine.
    """
    # Half a second to import, which a training in one process does not need.
    from torch.distributed.elastic.multiprocessing.api import SignalException  # noqa: PLC0415
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError  # noqa: PLC0415
    from torch.distributed.run import main as torchrun  # noqa: PLC0415

    # As many threads in all as there are cores; torchrun itself would give each process a single one.
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, count_cores() // processes)))
    # A failed process has said why; the launcher's account of it would bury that.
    with _choose_options() as options, quiet_loggers("torch.distributed.elastic", level=logging.CRITICAL):
        try:
            torchrun([*options, "--nproc-per-node", str(processes), script])
        except ChildFailedError:
            return 1
        except SignalException as error:
            return 128 + int(error.sigval)
    return 0


@contextmanager
def _choose_options() -> Iterator[list[str]]:
    """Give torchrun's options: the user's, or those for one machine, where nobody else can reach the processes."""
    if OPTIONS_VARIABLE in os.environ:
        yield shlex.split(os.environ[OPTIONS_VARIABLE])
        return
    with tempfile.TemporaryDirectory(prefix="gender-classifier-") as folder:  # mode 0700
        os.environ[_STORE_VARIABLE] = str(Path(folder, "store"))
        # torchrun's own TCP server for the processes, which listens on all interfaces.
        os.environ["TORCH_DISABLE_SHARE_RDZV_TCP_STORE"] = "1"
        loopback = _find_loopback()
        os.environ |= {"GLOO_SOCKET_IFNAME": loopback, "NCCL_SOCKET_IFNAME": loopback}
        endpoint = str(Path(folder, "rendezvous"))
        logs = str(Path(folder, "logs"))  # else torchrun leaves a folder behind for them
        yield [
            "--rdzv-backend",
            "c10d",
            "--rdzv-conf",
            "store_type=file",
            "--rdzv-endpoint",
            endpoint,
            "--log-dir",
            logs,
        ]


def _find_loopback() -> str:
    """Return the name of the loopback interface: ``lo`` on Linux, ``lo0`` on macOS."""
    names = {name for _, name in socket.if_nameindex()}
    return "lo0" if "lo0" in names else "lo"


@contextmanager
def join(device: str) -> Iterator[World]:
    """Take this process's place among those that torchrun started; alone where it did not.

    Args:
        device: ``train.device``: NVIDIA devices talk through NCCL, all else through gloo.

    Raises:
        ParamsError: more processes on this machine than it has devices.
    """
    if not is_launched():
        yield World()
        return
    world = World(*(int(os.environ[name]) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK")))
    on_gpu = device.startswith("cuda") or (device == "auto" and torch.cuda.is_available())
    if on_gpu and world.local_rank >= torch.cuda.device_count():
        raise ParamsError(
            f"params.yaml: `train.processes` is {os.environ['LOCAL_WORLD_SIZE']}, and this machine has "
            f"{torch.cuda.device_count()} NVIDIA devices; start no more processes than that"
        )
    if on_gpu:
        torch.cuda.set_device(world.local_rank)
    path = os.environ.get(_STORE_VARIABLE)
    store = dist.FileStore(path, world.size) if path else None  # type: ignore[attr-defined]
    dist.init_process_group("nccl" if on_gpu else "gloo", store=store, rank=world.rank, world_size=world.size)
    try:
        yield world
    finally:
        dist.destroy_process_group()


def broadcast(data: bytes | None, world: World, device: torch.device) -> bytes | None:
    """Return on every process what the first one gives."""
    if world.size == 1:
        return data
    length = torch.tensor([-1 if data is None else len(data)], device=device)
    dist.broadcast(length, src=0)
    if int(length) < 0:
        return None
    content = torch.empty(int(length), dtype=torch.uint8, device=device)
    if world.rank == 0:
        content.copy_(torch.frombuffer(bytearray(data or b""), dtype=torch.uint8))
    dist.broadcast(content, src=0)
    return content.cpu().numpy().tobytes()


def add_up(values: Sequence[float], world: World, device: torch.device) -> list[float]:
    """Return each value's sum over the processes."""
    if world.size == 1:
        return list(values)
    total = torch.tensor(values, dtype=torch.float64, device=device)
    dist.all_reduce(total)
    return [float(value) for value in total.cpu()]


def gather_rows(rows: NDArray[np.float32], count: int, world: World, device: torch.device) -> NDArray[np.float32]:
    """Put the parts that :meth:`World.share` made of ``count`` rows together again, on every process.

    Args:
        rows: float32 (n, C): this process's part.
        count: N, of all.
        world: the processes.
        device: through whose memory it goes.

    Returns:
        float32 (N, C).
    """
    if world.size == 1:
        return rows
    whole = torch.zeros(count, rows.shape[1], device=device)
    whole[world.share(count)] = torch.from_numpy(rows).to(device)
    dist.all_reduce(whole)  # all others hold zeros there: the sum is the part, to the bit
    gathered: NDArray[np.float32] = whole.cpu().numpy()
    return gathered


def wrap(model: torch.nn.Module, world: World) -> torch.nn.Module:
    """Return the network to train with: PyTorch's DDP, which averages gradients over the processes.

    The statistics of BatchNorm are those of the whole batch (SyncBatchNorm).

    Raises:
        ParamsError: BatchNorm on CPUs, where PyTorch cannot synchronise it.
    """
    if world.size == 1:
        return model
    if has_batch_norm(model):
        if next(model.parameters()).device.type == "cpu":
            raise ParamsError(
                "params.yaml: `train.processes` is above 1, and this network has BatchNorm, which PyTorch synchronises "
                "on GPUs only; set `train.processes` to 1, or `train.network` to alexnet"
            )
        model = torch.nn.SyncBatchNorm.convert_sync_batchnorm(model)  # type: ignore[no-untyped-call]
    return torch.nn.parallel.DistributedDataParallel(model)
