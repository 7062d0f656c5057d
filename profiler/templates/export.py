"""Exports a network once, as a graph whose every size is a polynomial in the widths.

    spec ─► generic widths (large primes) ─► torch ─► ONNX ─► primes back to widths ─► Template

The template travels to the device, where `device_agents.onboard.materialise` fills it in. It is
JSON: opsets, nodes with their attributes, inputs, outputs and layer, and initializers whose `data`
is one of

    {"kind": "raw", "base64": ...}             literal values
    {"kind": "ints", "values": [...]}          int64 values, which may depend on widths
    {"kind": "normal" or "positive", "scale", "fan_in": [axis, ...], "fan_in_divisor": [...]}
                                               random weights of size scale / sqrt(fan-in)

Integers that depend on widths are `{"terms": [[coefficient, [width index, ...]], ...], "divide": n}`.
"""

from __future__ import annotations

import contextlib
import json
import random
from collections.abc import Sequence
from dataclasses import asdict
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from joulemap import InputError

from ...datasets import NetworkSpec
from ...device_agents.onboard.model.materialise import TEMPLATE_SCHEMA_VERSION
from .. import networks
from ..cache import cache_folder, keep, read_kept
from ..networks.graph import derived_of, is_known
from ..networks.importing.torch_export import quiet_exporter
from ..networks.registry import code_fingerprint
from .derived import derived_template
from .generic_widths import SENTINEL, GenericWidths, Polynomial
from .layer_nodes import layers_of_nodes
from .template import ATTRIBUTE_KINDS, DTYPES, Template, base64_of
from .variant_check import check_variants
from .weight_rules import RECURRENT, WeightRules

if TYPE_CHECKING:
    import onnx
    import torch
    from torch import nn


def export_template(spec: NetworkSpec, *, batch: int = 1) -> Template:
    """Return the network's template, made by one export with torch's default exporter.

    Args:
        spec: A network that `networks.build` can build.
        batch: Samples per call, fixed in the template.

    Raises:
        InputError: The network cannot be built or exported, or its graph holds a size that the
            spec does not explain.
    """
    if isinstance(batch, bool) or not isinstance(batch, int) or batch < 1:
        raise InputError(f"batch is {batch!r}, not an int >= 1")
    if is_known(spec):
        derived = derived_of(spec, batch)
        template = derived_template(spec, derived.space, batch=batch)
        check_variants(template, derived, batch)
        return template
    generic = GenericWidths(spec, batch)
    module = networks.build(generic.spec, generic.widths)
    sample = _sample(spec, batch)
    model = _export(module, sample, spec.name)
    template = _Reader(spec, generic, batch, model, frozenset(module.state_dict())).template()
    _verify(template, spec, generic, model, batch)
    return template


def cached_template(spec: NetworkSpec, batch: int = 1, folder: Path | None = None) -> Template:
    """Return the network's template, from the cache where it has been exported before.

    The key holds the spec, the batch, the file that builds the network, and the versions of torch,
    onnx, onnxscript and the template format. A network whose code has no file is exported anew.

    Args:
        spec: A network that `networks.build` can build.
        batch: Samples per call, fixed in the template.
        folder: Where templates are kept; None means `joulemap/templates` in the user's cache.

    Raises:
        InputError: As `export_template`.
    """
    code = code_fingerprint(spec.source)
    if code is None:
        return export_template(spec, batch=batch)
    versions = [f"{name} {version(name)}" for name in ("torch", "onnx", "onnxscript")]
    key = [spec.fingerprint, batch, code, TEMPLATE_SCHEMA_VERSION, *versions]
    name = f"{sha256(json.dumps(key).encode()).hexdigest()}.json"
    cache = folder or cache_folder("templates")
    if (kept := read_kept(cache, name)) is not None:
        with contextlib.suppress(InputError):
            template = Template.from_json(kept)
            if template.content.get("fingerprint") == spec.fingerprint:
                return template
    template = export_template(spec, batch=batch)
    keep(cache, name, template.to_json().encode())
    return template


# -- torch to ONNX --------------------------------------------------------------------------------


def _sample(spec: NetworkSpec, batch: int) -> torch.Tensor:
    import torch

    if spec.layers[0].kind == "embedding":
        return torch.zeros(batch, *spec.input_shape, dtype=torch.int64)
    return torch.zeros(batch, *spec.input_shape)


def _export(module: nn.Module, sample: torch.Tensor, name: str) -> onnx.ModelProto:
    import torch

    try:
        with quiet_exporter():
            program = torch.onnx.export(module, (sample,), dynamo=True, verbose=False)
            if program is not None:
                _fold_gate_order(program)
    except Exception as error:
        raise InputError(
            f"torch cannot export {name} to ONNX: {type(error).__name__}: {str(error)[:250]}"
        ) from error
    if program is None:
        raise InputError(f"torch exported nothing for {name}")
    return program.model_proto


def _fold_gate_order(program: torch.onnx.ONNXProgram) -> None:
    """Fold what reorders the gates of recurrent weights, whatever the size of the weights.

    By default the exporter folds small ones, so the nodes of a graph would depend on the widths.
    """
    from onnxscript import optimizer

    if any(node.op_type in RECURRENT for node in program.model.graph):
        optimizer.optimize_ir(program.model, input_size_limit=SENTINEL, output_size_limit=SENTINEL)


# -- ONNX to template -----------------------------------------------------------------------------


class _Reader:
    """Reads an exported graph, every integer as a polynomial in the widths."""

    def __init__(
        self,
        spec: NetworkSpec,
        generic: GenericWidths,
        batch: int,
        model: onnx.ModelProto,
        parameters: frozenset[str],
    ) -> None:
        self.spec = spec
        self.generic = generic
        self.batch = batch
        self.model = model
        self.rules = WeightRules(model.graph.node, parameters)

    def template(self) -> Template:
        """Return the template.

        Raises:
            InputError: The graph holds what a template cannot.
        """
        graph = self.model.graph
        if self.model.functions or graph.sparse_initializer:
            raise InputError(f"{self.spec.name} exports functions or sparse tensors")
        return Template(
            {
                "schema_version": TEMPLATE_SCHEMA_VERSION,
                "network": self.spec.name,
                "fingerprint": self.spec.fingerprint,
                "batch": self.batch,
                "widths": [asdict(width) for width in self.spec.widths],
                "ir_version": self.model.ir_version,
                "opsets": [[item.domain, item.version] for item in self.model.opset_import],
                "graph": graph.name,
                "inputs": [self._input(item) for item in graph.input],
                "outputs": [self._value(item) for item in graph.output],
                "nodes": [
                    {**self._node(node), "layer": layer}
                    for node, layer in zip(
                        graph.node, layers_of_nodes(self.spec, graph.node), strict=True
                    )
                ],
                "initializers": [self._initializer(item) for item in graph.initializer],
            }
        )

    def _input(self, item: onnx.ValueInfoProto) -> dict[str, Any]:
        content = self._value(item)
        if any(isinstance(dim, dict) for dim in content["dims"]):
            raise InputError(f"the shape of input '{item.name}' depends on the widths")
        is_integer = not content["dtype"].startswith("float")
        # Indices below the smallest vocabulary are valid at every width vector.
        vocabulary = self.spec.at(self.spec.min_widths).layers[0].in_channels
        return {**content, "high": vocabulary if is_integer else None}

    def _value(self, item: onnx.ValueInfoProto) -> dict[str, Any]:
        tensor = item.type.tensor_type
        where = f"the shape of '{item.name}'"
        if any(not dim.HasField("dim_value") for dim in tensor.shape.dim):
            raise InputError(f"{where} is not fixed in the exported graph")
        return {
            "name": item.name,
            "dtype": _dtype(tensor.elem_type, f"'{item.name}'"),
            "dims": self._explain([dim.dim_value for dim in tensor.shape.dim], where),
        }

    def _explain(self, values: Sequence[int], where: str) -> list[Polynomial]:
        return [self.generic.explain(value, where) for value in values]

    def _node(self, node: onnx.NodeProto) -> dict[str, Any]:
        attributes = []
        for item in node.attribute:
            where = f"attribute '{item.name}' of {node.op_type} '{node.name}'"
            if item.type not in ATTRIBUTE_KINDS or item.ref_attr_name:
                raise InputError(f"{where} is of a kind that templates cannot hold")
            kind = ATTRIBUTE_KINDS[item.type]
            value: Any
            if kind == "int":
                value = self.generic.explain(item.i, where)
            elif kind == "ints":
                value = self._explain(item.ints, where)
            elif kind == "float":
                value = item.f
            elif kind == "floats":
                value = list(item.floats)
            elif kind == "string":
                value = item.s.decode()
            elif kind == "strings":
                value = [text.decode() for text in item.strings]
            else:
                value = self._constant(item.t, where)
            attributes.append({"name": item.name, "type": kind, "value": value})
        return {
            "op": node.op_type,
            "domain": node.domain,
            "name": node.name,
            "inputs": list(node.input),
            "outputs": list(node.output),
            "attributes": attributes,
        }

    def _constant(self, tensor: onnx.TensorProto, where: str) -> dict[str, Any]:
        import onnx

        array = onnx.numpy_helper.to_array(tensor)
        dims = self._explain(array.shape, where)
        integers = self._explain(array.ravel().tolist(), where) if array.dtype.kind in "iu" else []
        if any(isinstance(part, dict) for part in [*dims, *integers]):
            raise InputError(f"{where} depends on the widths, which templates cannot hold")
        return {"dtype": _dtype(tensor.data_type, where), "dims": dims, "base64": base64_of(array)}

    def _initializer(self, tensor: onnx.TensorProto) -> dict[str, Any]:
        import onnx

        where = f"tensor '{tensor.name}'"
        dtype = _dtype(tensor.data_type, where)
        dims = self._explain(tensor.dims, f"the shape of {where}")
        content = {"name": tensor.name, "dtype": dtype, "dims": dims}
        if dtype.startswith("float") and (rule := self.rules.rule(tensor.name, len(dims))):
            rule["fan_in_divisor"] = self._explain(rule["fan_in_divisor"], where)
            return {**content, "data": rule}
        array = onnx.numpy_helper.to_array(tensor)
        if dtype == "int64":
            if any(isinstance(dim, dict) for dim in dims):
                raise InputError(f"{where} holds integers in a shape that depends on the widths")
            return {
                **content,
                "data": {"kind": "ints", "values": self._explain(array.ravel().tolist(), where)},
            }
        if any(isinstance(dim, dict) for dim in dims):
            raise InputError(
                f"{where} is a constant whose shape depends on the widths; make it a parameter or "
                "a buffer of the module"
            )
        return {**content, "data": {"kind": "raw", "base64": base64_of(array)}}


def _dtype(code: int, where: str) -> str:
    if code not in DTYPES:
        raise InputError(f"{where} has a number format (ONNX type {code}) that templates lack")
    return DTYPES[code]


# -- verification ---------------------------------------------------------------------------------


def _verify(
    template: Template,
    spec: NetworkSpec,
    generic: GenericWidths,
    exported: onnx.ModelProto,
    batch: int,
) -> None:
    """Compare the template with its export, and a variant of it with torch.

    Raises:
        InputError: They differ.
    """
    import onnx
    import torch

    bounds = [asdict(width) for width in generic.spec.widths]
    again = Template({**template.content, "widths": bounds}).materialiser()
    copy = onnx.load_from_string(again.materialise(generic.widths))
    expected = [(item.name, list(item.dims)) for item in exported.graph.initializer]
    if expected != [(item.name, list(item.dims)) for item in copy.graph.initializer]:
        raise InputError(f"the template of {spec.name} does not lead back to its export")

    draw = random.Random(spec.fingerprint)  # noqa: S311 - reproducible, not secret
    widths = [draw.randrange(width.min, width.max + 1, width.multiple) for width in spec.widths]
    variant = onnx.load_from_string(template.materialiser().materialise(widths))
    where = f"the template of {spec.name} at widths {widths}"
    try:
        onnx.checker.check_model(variant, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise InputError(f"{where} is no valid model: {error}") from error
    module = networks.build(spec, widths)
    state = module.state_dict()
    for tensor in variant.graph.initializer:
        if tensor.name in state and list(state[tensor.name].shape) != list(tensor.dims):
            raise InputError(
                f"{where} gives '{tensor.name}' the shape {list(tensor.dims)}, but torch "
                f"{list(state[tensor.name].shape)}; a size depends on the widths in a way that "
                "the spec does not say"
            )
    with torch.no_grad():
        output = module(_sample(spec, batch))
    shape = [dim.dim_value for dim in variant.graph.output[0].type.tensor_type.shape.dim]
    if isinstance(output, torch.Tensor) and list(output.shape) != shape:
        raise InputError(f"{where} writes {shape}, but torch {list(output.shape)}")
