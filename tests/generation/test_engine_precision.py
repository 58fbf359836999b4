"""The precision of an engine in this process: what the processor is good at, or what was set."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from generation_samples import LINEAGE

from causalneg.config import EngineSettings, GenerateSettings
from causalneg.generation.engines.precision import engine_precision, expected_precision
from causalneg.generation.job import Job, determines
from causalneg.generation.profiles import load_profile
from causalneg.models import ResolvedModel
from causalneg.runtime import supports_bf16

ASKED = """
from causalneg.config import EngineSettings
from causalneg.generation.engines.precision import engine_precision
print(engine_precision(EngineSettings()))
"""


def test_by_itself_it_follows_the_processor() -> None:
    expected = "bf16" if supports_bf16(torch.device("cpu")) else "fp32"
    assert engine_precision(EngineSettings()) == expected_precision(EngineSettings()) == expected


@pytest.mark.parametrize("dtype", ["fp32", "bf16", "fp16"])
def test_what_is_set_holds(dtype: str) -> None:
    assert engine_precision(EngineSettings.model_validate({"dtype": dtype})) == dtype


def test_instructions_that_are_switched_off_do_not_count() -> None:
    """Though the processor has them: oneDNN is told to use AVX2 at most."""
    environment = os.environ | {"ONEDNN_MAX_CPU_ISA": "AVX2"}
    done = subprocess.run([sys.executable, "-c", ASKED], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["fp32"]


def test_on_a_cluster_its_machines_decide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "auto")
    assert expected_precision(EngineSettings()) is None
    assert expected_precision(EngineSettings(dtype="fp32")) == "fp32"


def test_another_precision_goes_on_with_what_was_paid_for() -> None:
    nobody = ResolvedModel("m", Path("m"), "f")

    def determined(engine: dict[str, str]) -> dict[str, object]:
        settings = GenerateSettings.model_validate({"engine": engine})
        job = Job("ws", "", settings, load_profile("generic"), LINEAGE, "m", nobody, nobody, None)
        return determines(job, 0)

    assert determined({"dtype": "fp32"}) == determined({"dtype": "bf16"}) == determined({})
