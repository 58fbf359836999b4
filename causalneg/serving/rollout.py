"""Deploys the application, and says what is waited for and why it cannot start."""

import re
import threading
import time
from typing import Any

import ray
from ray import serve
from ray.serve import Application, RunTarget
from ray.serve.schema import ApplicationStatus

from causalneg.config import ServeSettings
from causalneg.console import Reporter
from causalneg.errors import UserError
from causalneg.serving.app import NAME, START_REFUSED
from causalneg.serving.cluster import check_cores, cores_needed, serve_details

LOGGING = {"enable_access_log": False, "log_level": "WARNING"}
_LOOK_SECONDS = 0.3
_PATIENCE_SECONDS = 30.0  # before it is said what is waited for, where enough was free at first
_SAY_AGAIN_SECONDS = 30.0


def deploy(application: Application, settings: ServeSettings, report: Reporter, stop: threading.Event) -> None:
    """Deploy, and return once all replicas run, or when `stop` is set.

    Raises:
        UserError: a replica refuses to start, and the message is its reason; or cores that are not there did not come.
        RuntimeError: replicas fail for a reason that is no user's.
    """
    waiting = _Waiting(settings, report)
    serve.run_many([RunTarget(application, NAME, "/", LOGGING)], wait_for_applications_running=False)
    while not stop.wait(_LOOK_SECONDS):
        overview = serve.status().applications[NAME]
        if overview.status == ApplicationStatus.RUNNING:
            return
        messages = [overview.message, *(deployment.message for deployment in overview.deployments.values())]
        for message in messages:
            if refused := re.search(START_REFUSED.format(reason="(.*?)"), message, re.DOTALL):
                raise UserError(refused[1])
        if overview.status == ApplicationStatus.DEPLOY_FAILED:
            raise RuntimeError(_last_line(messages))
        waiting.look()


def _last_line(messages: list[str]) -> str:
    """Return what went wrong first, and behind it all that Serve says."""
    text = "\n".join(message for message in messages if message)
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return f"The replicas do not start: {lines[-1] if lines else 'Ray Serve gives no reason'}\n{text}"


class _Waiting:
    """Says now and then what is waited for.

    Args:
        settings: of the server.
        report: where it is said.
    """

    def __init__(self, settings: ServeSettings, report: Reporter) -> None:
        self._settings, self._report = settings, report
        self._began = self._said_at = time.monotonic()
        free = ray.available_resources().get("CPU", 0)
        self._patience = 0.0 if free < cores_needed(settings) else _PATIENCE_SECONDS
        self._said = ""

    def look(self) -> None:
        """Say what is waited for, if it is something else or has not been said for a while."""
        now = time.monotonic()
        check_cores(self._settings, now - self._began)
        if now - self._began < self._patience:
            return
        line = self._line()
        if line and (line != self._said or now - self._said_at > _SAY_AGAIN_SECONDS):
            self._report.line(f"serve: {line}")
            self._said, self._said_at = line, now

    def _line(self) -> str:
        replicas = _starting_replicas()
        unplaced = sum(self._cores(name) for name, replica in replicas if replica.get("pid") is None)
        free, there = ray.available_resources().get("CPU", 0), ray.cluster_resources().get("CPU", 0)
        if unplaced > free:
            return f"waiting for CPUs: {unplaced:g} needed, {free:g} of the cluster's {there:g} free"
        return f"waiting for {len(replicas)} replicas to open the index" if replicas else ""

    def _cores(self, deployment: str) -> float:
        shards = self._settings.spread_shards
        return self._settings.cores / shards if deployment.startswith("shard-") else self._settings.cores


def _starting_replicas() -> list[tuple[str, dict[str, Any]]]:
    """Return the replicas that do not run yet, each with the name of its deployment."""
    application = serve_details()["applications"][NAME]
    return [  # what is not known yet is left out there
        (name, replica)
        for name, deployment in application.get("deployments", {}).items()
        for replica in deployment.get("replicas", [])
        if replica.get("state") == "STARTING"
    ]
