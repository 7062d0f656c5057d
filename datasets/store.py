"""Datasets in their folders: reading them, and exporting a campaign; see `dataset_files`."""

from __future__ import annotations

from pathlib import Path

from .cost_dataset import CostDataset
from .dataset_files import (
    DEVICE_LINK,
    MEASUREMENTS,
    READ_VERSIONS,
    VISITS,
    campaign_tables,
    held_folder,
    lost_lines,
    make_folder,
    parts_of_journal,
    read_campaign,
    save_dataset,
    write_atomically,
    write_campaign,
)
from .journal import JournalContent

__all__ = [
    "DEVICE_LINK",
    "MEASUREMENTS",
    "READ_VERSIONS",
    "VISITS",
    "dataset_of",
    "export_campaign",
    "held_folder",
    "load_dataset",
    "lost_lines",
    "make_folder",
    "read_campaign",
    "save_dataset",
    "write_atomically",
]


def load_dataset(path: str | Path, *, allow_damaged: bool = False) -> CostDataset:
    """Return the dataset in a folder or a Parquet file; see `CostDataset.load`.

    Args:
        path: A folder, or a Parquet file of one.
        allow_damaged: Whether to read what can be read of a damaged one.

    Raises:
        InputError: There is none, or it is damaged.
    """
    return CostDataset.load(path, allow_damaged=allow_damaged)


def dataset_of(journal: JournalContent) -> CostDataset:
    """Return the dataset of what a journal holds so far; what of it cannot be used is said."""
    return CostDataset.from_parts(parts_of_journal(journal))


def export_campaign(folder: str | Path) -> CostDataset:
    """Write the Parquet files and the card of a campaign from its journal and return the dataset.

    Raises:
        InputError: The journal is damaged or the folder cannot be written.
    """
    folder = Path(folder)
    tables = campaign_tables(folder)
    dataset = CostDataset.from_parts(tables.parts)
    write_campaign(dataset, tables, folder)
    return dataset
