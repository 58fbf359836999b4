"""The command `serve`: starts the retriever on a port and keeps it until interrupted."""

import errno
import ipaddress
import json
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import httpx

from causalneg.config import Config, ServeSettings
from causalneg.console import Reporter
from causalneg.errors import UserError
from causalneg.indexing.store import open_index
from causalneg.models import ResolvedModel, resolve
from causalneg.runtime import ray_session
from causalneg.workspace import Workspace

_START_SECONDS = 60.0  # for the first answer, after Serve says that the application runs


def _address(host: str, port: int) -> tuple[socket.AddressFamily, tuple]:
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except (socket.gaierror, UnicodeError) as error:
        raise UserError(f"serve.host: {host!r} is no address of this machine; give another --host.") from error
    return family, address


def check_port(host: str, port: int) -> None:
    """Make sure that a server can listen here.

    Serve's own proxy would share a port with another server without a word.

    Raises:
        UserError: it cannot.
    """
    family, address = _address(host, port)
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # one just closed is free
        try:
            probe.bind(address)
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise UserError(
                    f"Port {port} on {host} is in use; stop what listens there or give another with --port."
                ) from error
            if error.errno == errno.EACCES:
                raise UserError(
                    f"Port {port} on {host} is not allowed to this user; give one above 1023 with --port."
                ) from error
            raise UserError(
                f"Nothing can listen on {host} port {port} ({error.strerror}); give another --host."
            ) from error


def base_url(host: str, port: int) -> str:
    """Return the URL by which this machine reaches the server."""
    address = ipaddress.ip_address(_address(host, port)[1][0])
    if address.is_unspecified:
        address = ipaddress.ip_address("127.0.0.1" if address.version == 4 else "::1")
    return f"http://[{address}]:{port}" if address.version == 6 else f"http://{address}:{port}"


def _served(workspace: Workspace) -> tuple[Path, ResolvedModel]:
    """Return the current index version and the model that belongs to it.

    Raises:
        UserError: there is no finished index, it is damaged, or the model is not the one it was built with.
    """
    details = workspace.require("index").details
    name = str(workspace.local_folder("model")) if details["trained"] else details["model"]
    found = resolve(name)
    folder = workspace.local_folder(f"index/{details['version']}")
    open_index(folder, found.fingerprint)  # here too, where the user sees what is wrong
    return folder, ResolvedModel(details["model"], found.path, found.fingerprint)


def _check_replicas(settings: ServeSettings) -> None:
    """Refuse more replicas than cores: Serve would wait for them without end."""
    import ray

    there = int(ray.cluster_resources().get("CPU", 0))
    if not os.environ.get("RAY_ADDRESS") and settings.replicas > there:
        raise UserError(f"serve.replicas: {settings.replicas} replicas need a core each, and there are {there}.")


def _wait_for_answer(url: str) -> None:
    deadline = time.monotonic() + _START_SECONDS
    # Proxies of the environment are for other hosts.
    with httpx.Client(trust_env=False, timeout=5) as client:
        while True:
            try:
                if client.get(f"{url}/health").status_code == httpx.codes.OK:
                    return
            except httpx.TransportError as error:
                if time.monotonic() > deadline:
                    raise TimeoutError(f"no answer from {url} within {_START_SECONDS:.0f} s") from error
            if time.monotonic() > deadline:
                raise TimeoutError(f"no healthy answer from {url} within {_START_SECONDS:.0f} s")
            time.sleep(0.1)


@contextmanager
def serving(config: Config, workspace: Workspace, report: Reporter) -> Iterator[str]:
    """Serve the workspace's index and give the base URL once it answers; the server stops at the end.

    Raises:
        UserError: there is nothing to serve, the port is taken, or Serve already runs on this cluster.
    """
    settings = config.serve
    check_port(settings.host, settings.port)
    url = base_url(settings.host, settings.port)
    folder, model = _served(workspace)
    report.line(f"serve: starting, index {folder.name}, model {model.name}")
    with ray_session():
        from ray import serve

        from causalneg.serving.app import application

        if serve.status().proxies:
            raise UserError("Ray Serve already runs on this cluster; stop it with `serve shutdown` first.")
        _check_replicas(settings)
        quiet = {"enable_access_log": False, "log_level": "WARNING"}
        try:
            serve.start(
                proxy_location="HeadOnly",
                http_options={"host": settings.host, "port": settings.port},
                logging_config=quiet,
            )
            serve.run(application(folder, model, settings), name="causalneg", logging_config=quiet)
            _wait_for_answer(url)
            yield url
        finally:
            serve.shutdown()


@contextmanager
def _stop_signals() -> Iterator[threading.Event]:
    """Give an event that Ctrl-C and SIGTERM set."""
    stop = threading.Event()

    def on_signal(_number: int, _frame: FrameType | None) -> None:
        stop.set()

    before = {number: signal.signal(number, on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def run(config: Config, workspace: Workspace, report: Reporter) -> None:
    """Serve until Ctrl-C or SIGTERM."""
    with serving(config, workspace, report) as url:
        body = json.dumps({"query": "who wrote it?", "limit": 3})
        report.line(f"serve: {url} (POST /v1/search, GET /health, GET /info); Ctrl-C stops it")
        report.line(f"  curl {url}/v1/search -H 'Content-Type: application/json' -d '{body}'")
        if not ipaddress.ip_address(_address(config.serve.host, config.serve.port)[1][0]).is_loopback:
            report.line(
                f"serve: {config.serve.host} is reachable from other machines, and nobody has to log in",
                style="yellow",
            )
        with _stop_signals() as stop:
            while not stop.wait(timeout=1):
                pass
        report.line("serve: stopping")
