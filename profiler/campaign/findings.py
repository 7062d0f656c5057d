"""What was found about a campaign or a fit: one finding, one subject, one severity."""

from __future__ import annotations

import enum
from collections.abc import Iterable
from dataclasses import dataclass


class Severity(enum.IntEnum):
    """How much a finding matters; the gravest is said first."""

    NOTE = 1
    LESS_PRECISE = 2
    MAY_BE_WRONG = 3


@dataclass(frozen=True)
class Finding:
    """One thing that stands out.

    Attributes:
        subject: What it is about. Two findings about one subject could contradict each other, so
            there is only one.
        severity: How much it matters.
        text: What, why it matters, what to do; in plain words.
    """

    subject: str
    severity: Severity
    text: str


def in_order(findings: Iterable[Finding]) -> list[Finding]:
    """Return the findings, the gravest first, as they came where alike.

    Raises:
        ValueError: Two are about the same subject.
    """
    found = list(findings)
    subjects = [finding.subject for finding in found]
    twice = sorted({subject for subject in subjects if subjects.count(subject) > 1})
    if twice:
        raise ValueError(f"two findings about {', '.join(twice)}")
    return sorted(found, key=lambda finding: -finding.severity)
