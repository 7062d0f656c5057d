"""Files of a cost that run without joulemap: ONNX, and torch's exported programs."""

from __future__ import annotations

import io
import json
import logging
import warnings
from os import PathLike, fspath
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper

import joulemap
from joulemap import InputError
from joulemap.regular_files import write_whole

from .base.cost_module import CostModule
from .base.polynomial import PolynomialCostModule
from .base.predictor import Predictor

OPSET = 18
IR_VERSION = 9  # What onnxruntime 1.16 reads, so that older boards do.
METADATA_FILE = "joulemap.json"


def to_onnx_file(predictor: Predictor, path: str | PathLike[str], *, smooth: bool = False) -> None:
    """Write the cost as an ONNX file: `widths` float32 (n, k) -> `cost` float32 (n,).

    Inside, numbers are float64. `metadata_props` hold target, unit, width_names, conditions and
    max_deviation.

    Args:
        predictor: A fitted predictor.
        path: The file, such as cost.onnx.
        smooth: Whether to write the surrogate for optimisers instead of the exact cost.

    Raises:
        InputError: The path cannot be written, or the predictor has no torch module.
        NotFittedError: The predictor is not fitted.
    """
    module = _module(predictor, smooth=smooth)
    if isinstance(module, PolynomialCostModule):
        model = _polynomial_model(module)
    else:
        model = _traced_model(module)
    model.producer_name, model.producer_version = "joulemap", joulemap.__version__
    helper.set_model_props(model, _metadata(module))
    onnx.checker.check_model(model, full_check=True)
    _write(path, model.SerializeToString(deterministic=True))


def to_torch_file(
    predictor: Predictor,
    path: str | PathLike[str],
    dtype: torch.dtype = torch.float32,
    *,
    smooth: bool = False,
) -> None:
    """Write the cost as an exported program: widths (n, k) -> cost (n,), differentiable.

    `torch.export.load(path).module()` gives a torch module, without joulemap installed; the extra
    file joulemap.json in it holds target, unit, width_names, conditions and max_deviation.

    Args:
        predictor: A fitted predictor.
        path: The file; its name ends in .pt2.
        dtype: Floating-point type of widths and cost; inside, numbers are float64.
        smooth: Whether to write the surrogate for optimisers instead of the exact cost.

    Raises:
        InputError: The path cannot be written, its name does not end in .pt2, or the predictor
            has no torch module.
        NotFittedError: The predictor is not fitted.
    """
    if not fspath(path).endswith(".pt2"):
        raise InputError(f"{path} must end in .pt2, the ending of torch's exported programs")
    module = _module(predictor, smooth=smooth)
    # Two rows and more: torch.export takes a size of 1 for a constant.
    example = torch.ones(2, len(module.width_names), dtype=dtype)
    rows = torch.export.Dim("n", min=0)
    program = torch.export.export(module, (example,), dynamic_shapes={"widths": {0: rows}})
    content = io.BytesIO()
    torch.export.save(program, content, extra_files={METADATA_FILE: json.dumps(_metadata(module))})
    _write(path, content.getvalue())


def _module(predictor: Predictor, *, smooth: bool) -> CostModule:
    conditions: dict[str, Any] = getattr(predictor, "conditions_", {})
    return predictor.to_torch(
        batch=conditions.get("batch", 1),
        precision=conditions.get("precision", "fp32"),
        smooth=smooth,
    ).eval()


def _metadata(module: CostModule) -> dict[str, str]:
    return {
        "joulemap_version": joulemap.__version__,
        "target": module.target,
        "unit": module.unit,
        "width_names": json.dumps(list(module.width_names)),
        "conditions": json.dumps(dict(module.info.conditions), default=str),
        "max_deviation": repr(module.max_deviation),
    }


def _polynomial_model(module: PolynomialCostModule) -> onnx.ModelProto:
    pairs = np.zeros((len(module.linear), len(module.linear)))
    if module.neighbours is not None:
        pairs = np.diag(module.neighbours.to(torch.float64).numpy(), 1)
    if module.quadratic is not None:
        pairs = pairs + module.quadratic.to(torch.float64).numpy()
    constants = {
        "offset": module.offset.to(torch.float64).numpy(),
        "linear": module.linear.to(torch.float64).numpy(),
        "quadratic": pairs,
    }
    constants["last"] = np.array([-1], dtype=np.int64)
    nodes = [
        helper.make_node("Cast", ["widths"], ["x"], to=TensorProto.DOUBLE),
        helper.make_node("MatMul", ["x", "quadratic"], ["xq"]),
        helper.make_node("Add", ["xq", "linear"], ["slopes"]),
        helper.make_node("Mul", ["slopes", "x"], ["terms"]),
        helper.make_node("ReduceSum", ["terms", "last"], ["sum"], keepdims=0),
        helper.make_node("Add", ["sum", "offset"], ["total"]),
    ]
    total = "total"
    if module.higher is not None and module.higher_index is not None:
        constants["higher"] = module.higher.to(torch.float64).numpy()
        constants["pads"] = np.array([0, 0, 0, 1], dtype=np.int64)
        constants["one"] = np.array(1.0)
        nodes.append(helper.make_node("Pad", ["x", "pads", "one"], ["filled"]))
        product = ""
        for position, columns in enumerate(module.higher_index.T):
            constants[f"columns{position}"] = columns.numpy()
            factor = f"factor{position}"
            nodes.append(
                helper.make_node("Gather", ["filled", f"columns{position}"], [factor], axis=1)
            )
            if product:
                nodes.append(helper.make_node("Mul", [product, factor], [f"product{position}"]))
                factor = f"product{position}"
            product = factor
        nodes.append(helper.make_node("MatMul", [product, "higher"], ["higher_sum"]))
        nodes.append(helper.make_node("Add", [total, "higher_sum"], ["whole"]))
        total = "whole"
    nodes.append(helper.make_node("Cast", [total], ["cost"], to=TensorProto.FLOAT))
    graph = helper.make_graph(
        nodes,
        "cost",
        [helper.make_tensor_value_info("widths", TensorProto.FLOAT, ["n", len(module.linear)])],
        [helper.make_tensor_value_info("cost", TensorProto.FLOAT, ["n"])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    return helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION
    )


def _traced_model(module: CostModule) -> onnx.ModelProto:
    example = torch.ones(2, len(module.width_names), dtype=torch.float32)
    with warnings.catch_warnings():
        # torch 2.13's exporter uses a deprecated class of torch's own, and logs each operator
        # of torchvision that it does without.
        logging.getLogger("torch.onnx._internal.exporter._registration").setLevel(logging.ERROR)
        warnings.filterwarnings(
            "ignore", message=r".*isinstance\(treespec, LeafSpec\)", category=FutureWarning
        )
        program = torch.onnx.export(
            module,
            (example,),
            input_names=["widths"],
            output_names=["cost"],
            dynamic_shapes={"widths": {0: torch.export.Dim("n", min=1)}},
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
    if program is None:
        raise InputError("torch cannot write this cost as ONNX")
    model: onnx.ModelProto = program.model_proto
    return model


def _write(path: str | PathLike[str], data: bytes) -> None:
    try:
        write_whole(path, lambda file: file.write(data))
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror}") from error
