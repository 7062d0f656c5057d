"""Fit, evaluate and export for the command line: files in, files out."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from sklearn.base import clone

from joulemap import InputError
from joulemap.regular_files import target_of

from ... import models
from ...datasets import CostDataset, LayerProfiles
from ...datasets.layer_profiles import FILE_NAME
from ...datasets.verification import UnverifiedWarning, joined
from ...models.base.measured_under import MeasuredUnder, refuse_unlike
from ..campaign.transfer_points import load_sources

EXPORTS = {"onnx": (".onnx", models.to_onnx_file), "torch": (".pt2", models.to_torch_file)}


def fit_and_save(
    folders: Sequence[str | Path],
    model: str,
    targets: Sequence[str],
    out: str | Path,
    sources: Sequence[str | Path] = (),
    *,
    allow_different: bool = False,
) -> list[models.CrossValidation]:
    """Fit one predictor per target, write them into one file and return their held-out errors.

    Args:
        folders: Datasets of one network and device; their rows are joined. For 'layerwise' of
            several networks; it and 'lookup' also learn from the folders' `layers.parquet`.
        model: Name of the model.
        targets: Cost columns.
        out: The predictor file.
        sources: Predictor files of other devices, for 'transfer'.
        allow_different: Whether datasets of one network may be joined that were measured under
            unlike conditions, or on several devices; the predictor records none of these then.

    Raises:
        InputError: The datasets do not fit together, or cannot be fitted; nothing is written then.
    """
    if (model == "transfer") != bool(sources):
        raise InputError("--model transfer and --from FILE, once or more, go together")
    _check_target(out)
    datasets = [CostDataset.load(folder) for folder in folders]
    for note in joined(dataset.verification for dataset in datasets).notes:
        warnings.warn(note, UnverifiedWarning, stacklevel=2)
    if model == "layerwise" and len({ds.spec.fingerprint for ds in datasets}) > 1:
        models.save([_layerwise(datasets, folders, target) for target in targets], out)
        # What is left out there are networks: the predictor says how well it predicts them.
        return []
    for other in datasets[1:]:
        sides = [MeasuredUnder.of_dataset(ds, targets[0]) for ds in (datasets[0], other)]
        differences = sides[0].differences(sides[1])
        if not allow_different:
            refuse_unlike(differences, "the datasets")
        for each in differences:
            warnings.warn(f"fitted together although unlike: {each}", UserWarning, stacklevel=2)
    dataset = CostDataset.join(datasets, allow_different=allow_different)
    tables, predictors = [], []
    for target in targets:
        compared: list[str | models.Predictor] = [model, "bilinear"]
        if model == "transfer":
            transfer = models.TransferPredictor(sources=load_sources(sources, target, dataset.spec))
            compared = [transfer, *_from_scratch(dataset)]
            predictors.append(clone(transfer).fit_dataset(dataset, target))
        elif model == "layerwise":
            predictors.append(_layerwise([dataset], folders, target))
        elif model == "lookup":
            profiles = _profiles(folders, dataset, target)
            predictors.append(models.LookupTablePredictor().fit_dataset(dataset, target, profiles))
        else:
            predictors.append(models.fit(dataset, model, target))
        tables.append(models.cross_validate(dataset, list(dict.fromkeys(compared)), target))
    models.save(predictors, out)
    return tables


def _from_scratch(dataset: CostDataset) -> list[str]:
    """Return what a transfer is compared with: the aligned model, where folds are enough for it."""
    count = len(dataset.spec.width_names)
    needed = models.AlignedBilinearPredictor(dataset.spec).num_needed(count)
    return ["aligned"] if len(dataset) - math.ceil(len(dataset) / 5) >= needed else []


def _layerwise(
    datasets: Sequence[CostDataset], folders: Sequence[str | Path], target: str
) -> models.Predictor:
    profiles = _profiles(folders, datasets[0], target)
    return models.LayerwisePredictor().fit_dataset(datasets, target, profiles)


def _profiles(
    folders: Sequence[str | Path], dataset: CostDataset, target: str
) -> list[LayerProfiles]:
    """Return the layer profiles beside the datasets; none for costs that profiles do not hold."""
    if dataset.unit(target) != "s":
        return []
    return [LayerProfiles.load(folder) for folder in folders if (Path(folder) / FILE_NAME).exists()]


def evaluate_file(
    file: str | Path,
    folder: str | Path,
    target: str | None,
    *,
    allow_different: bool = False,
) -> models.Evaluation:
    """Return the errors of a saved predictor on a dataset.

    Raises:
        InputError: A file cannot be used, the dataset is of another network, or of unlike
            conditions that are not allowed.
    """
    predictor = models.load(file, target=target)
    dataset = CostDataset.load(folder)
    try:
        found = models.evaluate(predictor, dataset, allow_different=allow_different)
    except InputError as error:
        raise InputError(f"{file} and {folder} cannot be compared: {error}") from error
    return replace(found, warnings=(*found.warnings, *dataset.verification.notes))


def export_file(
    file: str | Path, to: str, out: str | Path | None, target: str | None, *, smooth: bool = False
) -> Path:
    """Write a predictor's cost module as a file that runs without joulemap and return its path.

    Args:
        file: A predictor file.
        to: `onnx` or `torch`.
        out: The file to write; the predictor's name with another ending when None.
        target: Which cost, if the file has several.
        smooth: Whether to write the surrogate for optimisers instead of the exact cost.

    Raises:
        InputError: The file cannot be used, or `to` names no format.
    """
    if to not in EXPORTS:
        raise InputError(f"--to {to}: write one of {', '.join(EXPORTS)}")
    suffix, write = EXPORTS[to]
    path = Path(out) if out is not None else Path(file).with_suffix(suffix)
    _check_target(path)
    if os.path.realpath(path) == os.path.realpath(file):
        raise InputError(f"{path} is the predictor itself; choose another file")
    write(models.load(file, target=target), path, smooth=smooth)
    return path


def _check_target(path: str | Path) -> None:
    """Refuse a place where no file can be written, before anything that takes long."""
    try:
        target_of(path)
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror}") from error
