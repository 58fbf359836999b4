"""Runtimes that run a converted model without PyTorch: OpenVINO and ONNX Runtime."""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from causalneg.serving.encoders.encoder import DType, Forward

if TYPE_CHECKING:
    import torch

    from causalneg.serving.encoders.pytorch import SentenceModule

_OPENVINO_FILE = "model.xml"
_ONNX_FILE = "model.onnx"
_INPUTS = ["input_ids", "attention_mask"]
_PRECISIONS: dict[DType, str] = {"float32": "f32", "bfloat16": "bf16"}


class Runtime(NamedTuple):
    """A runtime for converted models.

    Attributes:
        packages: that have to be installed.
        convert: writes a module into a folder.
        dtypes: of products that this processor has.
        open: returns a function that runs what was written, with so many threads.
    """

    packages: tuple[str, ...]
    convert: Callable[["SentenceModule", Path], None]
    dtypes: Callable[[], list[DType]]
    open: Callable[[Path, DType, int], Forward]

    @property
    def missing(self) -> list[str]:
        """Packages that are not installed."""
        return [package for package in self.packages if find_spec(package) is None]


@contextmanager
def _example() -> Iterator[tuple["torch.Tensor", "torch.Tensor"]]:
    """Inputs to convert with: rows of unlike length, so that padding is nothing that is always or never there."""
    import torch

    ids = torch.ones(2, 9, dtype=torch.int64)
    mask = torch.ones_like(ids)
    mask[1, 5:] = 0
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # calibration tells whether what tracing warns of matters
        yield ids, mask


def _convert_openvino(module: "SentenceModule", folder: Path) -> None:
    import openvino

    with _example() as (ids, mask):
        model = openvino.convert_model(module, example_input=dict(zip(_INPUTS, (ids, mask), strict=True)))
    openvino.save_model(model, folder / _OPENVINO_FILE, compress_to_fp16=False)


def _openvino_dtypes() -> list[DType]:
    import openvino

    capabilities = openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    return ["float32", "bfloat16"] if "BF16" in capabilities else ["float32"]


def _open_openvino(folder: Path, dtype: DType, threads: int) -> Forward:
    import openvino

    settings = {
        "INFERENCE_PRECISION_HINT": _PRECISIONS[dtype],
        "INFERENCE_NUM_THREADS": threads,
        "PERFORMANCE_HINT": "LATENCY",
    }
    request = openvino.Core().compile_model(folder / _OPENVINO_FILE, "CPU", settings).create_infer_request()

    def forward(ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
        return np.asarray(request.infer({"input_ids": ids, "attention_mask": mask}, share_inputs=True)[0])

    return forward


def _convert_onnx(module: "SentenceModule", folder: Path) -> None:
    import torch

    free = {0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC}
    with _example() as example:
        torch.onnx.export(
            module,
            example,
            folder / _ONNX_FILE,
            input_names=_INPUTS,
            output_names=["sentence_embedding"],
            dynamic_shapes=dict.fromkeys(_INPUTS, free),
            dynamo=True,
            external_data=False,
            verbose=False,
        )


def _open_onnx(folder: Path, dtype: DType, threads: int) -> Forward:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(folder / _ONNX_FILE, options, providers=["CPUExecutionProvider"])

    def forward(ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
        return np.asarray(session.run(None, {"input_ids": ids, "attention_mask": mask})[0])

    return forward


RUNTIMES = {
    "openvino": Runtime(("openvino",), _convert_openvino, _openvino_dtypes, _open_openvino),
    "onnx": Runtime(("onnxruntime", "onnx", "onnxscript"), _convert_onnx, lambda: ["float32"], _open_onnx),
}
