"""The Ray Serve application: encoder and index together in each replica, the vectors on request in others."""

import os
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from ray import serve
from ray.serve import Application
from ray.serve.config import AutoscalingConfig
from ray.serve.exceptions import DeploymentUnavailableError
from ray.serve.handle import DeploymentHandle

from causalneg.config import Config
from causalneg.errors import UserError
from causalneg.indexing.store import local_vectors
from causalneg.serving.service import LocalService
from causalneg.serving.shards import OPEN_SECONDS, ShardReplica, SpreadVectors

NAME = "causalneg"  # of the application
START_REFUSED = "causalneg cannot start: «{reason}»"  # how a sentence for the user stands in what Serve says
_DEPLOYMENT = "retriever"
_MANY = 100_000  # requests in flight: how many is for our own queue to say, which knows what they cost
_HEALTH_SECONDS = 2.0  # between looks at a replica, so that a dead one is replaced soon
_CALL_SECONDS = OPEN_SECONDS + 60.0  # for a peer to open a version


class Replicas:
    """The replicas of the deployment, reached through Serve."""

    async def call(self, method: str, *arguments: str) -> list[Any]:
        """Call a method of each; an exception stands in the place of an answer."""
        handle = serve.get_deployment_handle(_DEPLOYMENT, NAME)
        return await handle.broadcast(method, *arguments).results_async(timeout_s=_CALL_SECONDS, return_exceptions=True)


def drain(seconds: float) -> None:
    """Have the replicas that there are answer what they took and refuse the rest, for so long at most."""
    if NAME not in serve.status().applications:
        return
    response = serve.get_deployment_handle(_DEPLOYMENT, NAME).broadcast("drain")
    with suppress(DeploymentUnavailableError):
        response.results(timeout_s=seconds, return_exceptions=True)


def metrics_folder(port: int) -> Path:
    """Return where the replicas of one server on this machine keep their metrics."""
    return Path(tempfile.gettempdir()) / f"causalneg-metrics-{os.getuid()}-{port}"


class Retriever:
    """One replica.

    Args:
        config: the settings.
        shards: the deployments that hold the vectors; none where they lie here.
    """

    _service: LocalService | None = None  # until the constructor is through

    def __init__(self, config: Config, *shards: DeploymentHandle) -> None:
        metrics_folder(config.serve.port).mkdir(mode=0o700, exist_ok=True)  # before the library looks for it
        from causalneg.serving.keys import Keys
        from causalneg.serving.metrics import Metrics
        from causalneg.serving.opening import open_service

        self._settings = config.serve
        self._metrics = Metrics()
        open_vectors = SpreadVectors(shards, config.serve.timeout_ms / 1000) if shards else local_vectors
        try:
            self._keys = Keys.read(config.serve.keys)
            self._service, self._replica = open_service(config, Replicas(), open_vectors)
        except UserError as error:  # of which Serve would pass on a traceback
            raise RuntimeError(START_REFUSED.format(reason=error)) from None

    def __serve_build_asgi_app__(self) -> FastAPI:
        from causalneg.serving.api.app import create_app

        assert self._service is not None
        return create_app(self._service, self._settings, self._metrics, self._keys)

    async def prepare(self, version: str) -> str | None:
        """Open a version aside; return why it cannot be."""
        return await self._replica.prepare(version)

    async def forget(self) -> None:
        """Let go of what was prepared."""
        await self._replica.forget()

    async def settle(self) -> str:
        """Follow the catalogue and return the version that answers."""
        return await self._replica.settle()

    async def check_health(self) -> None:
        """Raise when this replica is to be replaced."""
        assert self._service is not None
        self._service.check()

    async def drain(self) -> None:
        """Take no more requests, and return when the last one is answered."""
        assert self._service is not None
        await self._service.drain()

    async def __del__(self) -> None:
        """Finish what waits."""
        if self._service is not None:
            await self._service.close()


def _shards(config: Config) -> list[Application]:
    """Return the deployments of the shards.

    A replica's threads search while the retriever's wait, on another machine where there is one: together they reserve
    as many cores as the retriever, so that any number of shards starts on one machine.
    """
    settings, shards = config.serve, config.serve.spread_shards
    if not shards:
        return []
    deployment = serve.deployment(
        num_replicas=settings.replicas,
        max_ongoing_requests=_MANY,
        health_check_period_s=_HEALTH_SECONDS,
        graceful_shutdown_wait_loop_s=0.2,
        # Rounded down to what Ray counts in, or a last one would find too little left.
        ray_actor_options={"num_cpus": 10_000 * settings.cores // shards / 10_000},
    )(ShardReplica)
    return [deployment.options(name=f"shard-{n:03}").bind(config, n) for n in range(shards)]


def build(config: Config) -> Application:
    """Return the application that serves a workspace's active index version; `serve deploy` calls it with `args`.

    Args:
        config: the settings; `workspace` at the same path on every node.
    """
    settings = config.serve
    scaling: dict[str, Any] = {"num_replicas": settings.replicas}
    if settings.max_replicas is not None:
        scaling = {
            "autoscaling_config": AutoscalingConfig(
                min_replicas=settings.replicas,
                max_replicas=settings.max_replicas,
                target_ongoing_requests=settings.requests_per_replica,
            )
        }
    environment = {
        "PROMETHEUS_MULTIPROC_DIR": str(metrics_folder(settings.port)),
        # Searches have a thread of their own anyway, and a hop between event loops costs each request a millisecond.
        "RAY_SERVE_RUN_USER_CODE_IN_SEPARATE_THREAD": "0",
    }
    if settings.spread_shards:  # the thread that searches waits for them, and not the loop that takes requests
        environment["RAY_SERVE_RUN_ROUTER_IN_SEPARATE_LOOP"] = "1"
    deployment = serve.deployment(
        name=_DEPLOYMENT,
        max_ongoing_requests=_MANY,
        health_check_period_s=_HEALTH_SECONDS,
        graceful_shutdown_wait_loop_s=0.2,
        graceful_shutdown_timeout_s=settings.timeout_ms / 1000 + 5,
        ray_actor_options={
            "num_cpus": settings.cores,
            "runtime_env": {"env_vars": environment},
        },
        **scaling,
    )(serve.ingress()(Retriever))
    return deployment.bind(config, *_shards(config))
