"""Fit, evaluate and export for the command line: files in, files out."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.base import clone

from joulemap import InputError

from .. import models
from ..datasets import CostDataset, LayerProfiles, metrics
from ..datasets.layer_profiles import FILE_NAME
from ..datasets.metrics import NoiseFloor
from .transfer_points import load_sources

EXPORTS = {"onnx": (".onnx", models.to_onnx_file), "torch": (".pt2", models.to_torch_file)}


def fit_and_save(
    folders: Sequence[str | Path],
    model: str,
    targets: Sequence[str],
    out: str | Path,
    sources: Sequence[str | Path] = (),
) -> list[models.CrossValidation]:
    """Fit one predictor per target, write them into one file and return their held-out errors.

    Args:
        folders: Datasets of one network and device; their rows are joined. For 'layerwise' of
            several networks; it and 'lookup' also learn from the folders' `layers.parquet`.
        model: Name of the model.
        targets: Cost columns.
        out: The predictor file.
        sources: Predictor files of other devices, for 'transfer'.

    Raises:
        InputError: The datasets do not fit together, or cannot be fitted; nothing is written then.
    """
    if (model == "transfer") != bool(sources):
        raise InputError("--model transfer and --from FILE, once or more, go together")
    datasets = [CostDataset.load(folder) for folder in folders]
    if model == "layerwise" and len({ds.spec.fingerprint for ds in datasets}) > 1:
        models.save([_layerwise(datasets, folders, target) for target in targets], out)
        # What is left out there are networks: the predictor says how well it predicts them.
        return []
    dataset = CostDataset.join(datasets)
    tables, predictors = [], []
    for target in targets:
        compared: list[str | models.Predictor] = [model, "bilinear"]
        if model == "transfer":
            # Baselines alone: a few measurements are too few for most other models.
            transfer = models.TransferPredictor(sources=load_sources(sources, target, dataset.spec))
            compared = [transfer]
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


@dataclass(frozen=True)
class Evaluation:
    """How far a predictor is from the measurements of a dataset.

    Attributes:
        target: The cost column.
        unit: Its SI unit.
        num_rows: Variants that have it.
        mape: Mean of |y - prediction| / y, a fraction.
        share_within_5: Share of predictions within 5 %.
        share_within_10: Share of predictions within 10 %.
        spearman: Rank correlation.
        coverage_90: Share of measurements inside the 90 % interval.
        noise_floor: Of the dataset; None without re-visited variants.
        warnings: What to keep in mind, one sentence each.
    """

    target: str
    unit: str
    num_rows: int
    mape: float
    share_within_5: float
    share_within_10: float
    spearman: float
    coverage_90: float
    noise_floor: NoiseFloor | None
    warnings: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return the figures as a dictionary for JSON."""
        content = asdict(self)
        content["noise_floor"] = self.noise_floor.to_dict() if self.noise_floor else None
        return content


def evaluate_file(file: str | Path, folder: str | Path, target: str | None) -> Evaluation:
    """Return the errors of a saved predictor on a dataset.

    Raises:
        InputError: A file cannot be used, or the dataset is of another network.
    """
    predictor = models.load(file, target=target)
    dataset = CostDataset.load(folder)
    if predictor.spec is None or predictor.spec.fingerprint != dataset.spec.fingerprint:
        name = predictor.spec.name if predictor.spec else "no network"
        raise InputError(
            f"{file} predicts {name}, {folder} measures another network ({dataset.spec.name}, or "
            "one of the same name with other layers)"
        )
    X, y, _ = dataset.xyw(predictor.target_)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        prediction = predictor.predict(X)
        low, high = predictor.predict_interval(X, coverage=0.9)
    said = {str(warning.message): None for warning in caught}
    return Evaluation(
        target=predictor.target_,
        unit=predictor.unit_,
        num_rows=len(y),
        mape=metrics.mape(y, prediction),
        share_within_5=metrics.share_within(y, prediction, 0.05),
        share_within_10=metrics.share_within(y, prediction, 0.10),
        spearman=metrics.spearman(y, prediction) if len(y) > 1 else float("nan"),
        coverage_90=float(np.mean((low <= y) & (y <= high))),
        noise_floor=dataset.noise_floor(predictor.target_),
        warnings=tuple(said),
    )


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
    if path.resolve() == Path(file).resolve():
        raise InputError(f"{path} is the predictor itself; choose another file")
    write(models.load(file, target=target), path, smooth=smooth)
    return path
