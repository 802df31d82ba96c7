"""Processor, memory, disk, network and GPU while a run is open, as MLflow's own switch asks for them."""

# mypy: disable-error-code=no-untyped-call

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from mlflow.environment_variables import MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING
from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

from gender_classifier.track.store import quiet_mlflow, shorten

_logger = logging.getLogger(__name__)


class _Monitor(SystemMetricsMonitor):
    """MLflow's monitor, whose samples take the way of all other metrics: an outage delays them and loses none."""

    def __init__(self, run_id: str, address: str, log: Callable[..., None], opened: float) -> None:
        super().__init__(run_id, tracking_uri=address)
        self._log, self._opened = log, opened

    def monitor(self) -> None:
        """Publish a mean over each interval until :meth:`finish`, and the last one then."""
        self.collect_metrics()  # psutil measures from one call to the next
        for monitor in self.monitors:
            monitor.clear_metrics()
        is_over = False
        while not is_over:
            for _ in range(self.samples_before_logging):
                is_over = self._shutdown_event.wait(self.sampling_interval)
                self.collect_metrics()
                if is_over:
                    break
            try:
                self.publish_metrics(self.aggregate_metrics())
            except Exception as error:
                _logger.warning("no more system metrics: %s", shorten(error))
                return

    def publish_metrics(self, metrics: Mapping[str, Any]) -> None:
        node = f"{self.node_id}/" if self.node_id else ""
        step = max(0, round(time.time() - self._opened))
        self._log({f"system/{node}{key}": value for key, value in metrics.items()}, step=step)
        for monitor in self.monitors:
            monitor.clear_metrics()


@contextmanager
def watch_system(run_id: str, address: str, log: Callable[..., None], opened: float) -> Iterator[None]:
    """Log ``system/...`` until the block ends, if ``MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING`` is true.

    ``MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL`` is the interval in seconds, 10 by default, and
    ``MLFLOW_SYSTEM_METRICS_SAMPLES_BEFORE_LOGGING`` the number of samples in each mean.

    Args:
        run_id: of the run.
        address: of its store.
        log: logs metrics at a step, from another thread.
        opened: when the run was opened first, s since 1970. The step is the seconds since then: a run that goes on
            continues its curves.
    """
    if not MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING.get():
        yield
        return
    with quiet_mlflow():
        monitor = _Monitor(run_id, address, log, opened)
        monitor.start()
    try:
        yield
    finally:
        with quiet_mlflow():
            monitor.finish()
