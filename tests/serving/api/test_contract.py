"""The interface does what its own document says, for requests made from that document, right ones and wrong ones."""

from pathlib import Path
from tempfile import TemporaryDirectory

import schemathesis
from hypothesis import HealthCheck, settings
from serving_samples import Echo

from causalneg.config import ServeSettings
from causalneg.serving.api import create_app
from causalneg.serving.keys import Keys, add
from causalneg.serving.metrics import Metrics

EXAMPLES = 25  # per operation


def _config() -> schemathesis.Config:
    config = schemathesis.Config()
    project = config.projects.default
    project.generation.allow_extra_parameters = False  # headers that nobody knows are to be ignored
    # Empty queries, large sums of offset and limit and filters without a condition are told apart by words only.
    accepted = project.checks.positive_data_acceptance
    accepted.expected_statuses = [*accepted.expected_statuses, "400", "413", "422"]
    return config


# The tests are made from the document when this file is read, so the interface must be there by then.
FOLDER = TemporaryDirectory()
KEY = add(Path(FOLDER.name) / "keys.json", "tester", "write")
APP = create_app(Echo(), ServeSettings(), Metrics(), Keys.read(Path(FOLDER.name) / "keys.json"))
INTERFACE = schemathesis.openapi.from_asgi("/openapi.json", APP, config=_config())


@INTERFACE.parametrize()
@settings(max_examples=EXAMPLES, derandomize=True, database=None, deadline=None, suppress_health_check=[*HealthCheck])
def test_the_interface_keeps_its_word(case: schemathesis.Case) -> None:
    case.call_and_validate(headers={"Authorization": f"Bearer {KEY}"})


def test_every_operation_is_tried() -> None:
    labels = {operation.ok().label for operation in INTERFACE.get_all_operations()}
    assert len(labels) == 17
    assert "GET /v1/models/{model}" in labels
    assert {"POST /v1/search", "DELETE /v1/passages", "GET /v1/passages/{passage_id}", "GET /ready"} <= labels
