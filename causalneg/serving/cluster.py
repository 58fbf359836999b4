"""What a Ray cluster has for a server, and which server it is for."""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import ray
from ray import serve
from ray.serve.context import _get_global_client

from causalneg.config import ServeSettings
from causalneg.console import Reporter
from causalneg.errors import UserError
from causalneg.serving.app import NAME, drain

_LEASE = "causalneg-server"


def is_shared() -> bool:
    """Tell whether the cluster is one that others use too, and not this process's own."""
    return bool(os.environ.get("RAY_ADDRESS"))


def serve_details() -> dict[str, Any]:
    """Return what Ray Serve says of its applications and replicas; nothing where it does not run."""
    client = _get_global_client(raise_if_no_controller_running=False)
    return client.get_serve_details() if client else {}


def cores_needed(settings: ServeSettings) -> int:
    """Return the cores that the replicas reserve, those of their shards included."""
    return settings.replicas * settings.cores * (2 if settings.spread_shards else 1)


def check_cores(settings: ServeSettings, waited: float = 0.0) -> None:
    """Refuse more cores than there are: Serve would wait for them without end.

    Args:
        settings: of the server; `wait_seconds` is for nodes that an autoscaler adds.
        waited: seconds since they were asked for.

    Raises:
        UserError: it is so.
    """
    nodes = [node["Resources"].get("CPU", 0) for node in ray.nodes() if node["Alive"]]
    needed, there = cores_needed(settings), sum(nodes)
    places = sum(int(cores // settings.cores) for cores in nodes)
    if (needed <= there and settings.replicas <= places) or waited < settings.wait_seconds:
        return
    largest = f", at most {max(nodes, default=0):g} on one machine" if len(nodes) > 1 else ""
    raise UserError(
        f"serve.replicas: {settings.replicas} replicas of {settings.cores} threads "
        f"{'and their shards ' if settings.spread_shards else ''}need {needed} cores, and there are {there:g}{largest}"
        f"{'; give --wait-seconds where an autoscaler adds nodes' if is_shared() else ''}."
    )


class _Lease:
    """An actor that lives as long as the process that made it, and tells who that is."""

    def __init__(self, holder: str) -> None:
        self._holder = holder

    def holder(self) -> str:
        return self._holder


@contextmanager
def only_server(url: str) -> Iterator[None]:
    """Be the only server on the cluster until the end, or until this process dies.

    Args:
        url: of this server, for who comes second.

    Raises:
        UserError: another process serves there.
    """
    if not is_shared():
        yield
        return
    holder = f"process {os.getpid()} on {socket.gethostname()} at {url}"
    try:
        lease: Any = ray.remote(num_cpus=0)(_Lease).options(name=_LEASE, namespace=_LEASE).remote(holder)
    except ValueError as error:  # the name is taken
        raise UserError(
            f"This Ray cluster already has a causalneg server, {_holder()}. A cluster has one; stop that one first, "
            "or start this one without RAY_ADDRESS, or on another cluster."
        ) from error
    try:
        yield
    finally:
        ray.kill(lease)


def _holder() -> str:
    try:
        return str(ray.get(ray.get_actor(_LEASE, _LEASE).holder.remote(), timeout=10))
    except (ValueError, ray.exceptions.RayError):  # it is ending, or starting
        return "which does not say where"


def clear_leftovers(seconds: float, report: Reporter) -> None:
    """End what a server whose process was killed left on the cluster; it goes on answering until then.

    Args:
        seconds: longest wait for requests that it took.
        report: where it is said.

    Raises:
        UserError: Ray Serve runs applications that are not such a server's.
    """
    details = serve_details()
    if not details:
        return
    applications = details.get("applications", {})
    # Only where `only_server` made sure of it has the process of an application with our name died.
    left = {NAME} if is_shared() and applications.get(NAME, {}).get("source") == "imperative" else set()
    if others := applications.keys() - left:
        raise UserError(
            f"Ray Serve already runs {', '.join(map(repr, sorted(others)))} on this cluster; stop it with "
            "`serve shutdown` first, or start this server without RAY_ADDRESS."
        )
    report.line("serve: taking the place of a server whose process was killed")
    drain(seconds)
    serve.shutdown()
