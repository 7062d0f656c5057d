"""Which meters a device has, which of them a campaign reads, and how often they update."""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any, Union

from ..files import Files
from ..machine.clock import MachineClock
from ..meters_answer import MetersAnswer
from ..visit_settings import VisitSettings
from .mean_power import median
from .meter import COUNTER, ESTIMATE, SAMPLER, Meter, MeterError, MeterInfo, Missing
from .power_log import FINE_S, PowerLog
from .visit import ChosenMeter, least_window_s, state_of

AUTO = "auto"
NONE = "none"
MAX_METERS = 2
# So many meters that see a part only are told by name.
MAX_PARTS_TOLD = 6
_MODULE_NAME = re.compile(r"[a-z][a-z0-9_]*\Z")
_METERS = __name__.rsplit(".", 3)[0] + ".meters"
# An update is looked for so long, or until so many were seen.
ENROL_S = 2.0
ENROL_PERIODS = 12
MAX_ENROL_S = 15.0
ENROL_UPDATES = 25
FEW_UPDATES = 4
# Updates further apart than so many periods have a repeated value in between.
SINGLE_GAP = 1.6
# Where no update can be seen and none is stated.
UNKNOWN_GAUGE_PERIOD_S = 1.0
_OTHERWISE = "or choose another meter"

Found = Union[Meter, Missing]


class MeterChoiceError(Exception):
    """The meters that are asked for cannot be had: the message says why and what to do."""


def find_meters(modules: dict[str, str], files: Files) -> list[Found]:
    """Return what all modules find, in their order; a module that fails is a missing meter.

    Args:
        modules: Meter name to its module in the meters folder.
        files: The machine's files.
    """
    found: list[Found] = []
    for name, module in modules.items():
        if not _MODULE_NAME.match(module):
            continue
        try:
            found += importlib.import_module(_METERS + "." + module).find(files)
        except Exception as error:  # noqa: BLE001 - one meter's failure must not hide the others
            reason = f"looking for it failed: {type(error).__name__}: {error}"
            found.append(Missing(name, "", reason[:500], "report this with the device's name"))
    return found


def find_told(
    found: Sequence[Found],
    modules: Mapping[str, str],
    files: Files,
    told: Mapping[str, Mapping[str, str]],
) -> list[Found]:
    """Return the same meters with those found anew of which the user tells something.

    Args:
        found: What was found without.
        modules: Meter name to its module in the meters folder.
        files: The machine's files.
        told: Meter name to what is told of it (see `meter_options`).
    """
    kept = list(found)
    for name, options in told.items():
        if not options or name not in modules:
            continue
        places = [place for place, item in enumerate(kept) if _backend(item) == name]
        for place in places:
            item = kept[place]
            if not isinstance(item, Missing):
                item.close()
        new = importlib.import_module(_METERS + "." + modules[name]).find(files, options)
        start = places[0] if places else len(kept)
        kept = [item for item in kept if _backend(item) != name]
        kept[start:start] = new
    return kept


def _backend(item: Any) -> str:
    return str(item.name if isinstance(item, Missing) else item.info.name)


def describe(info: MeterInfo) -> dict[str, Any]:
    """Return all that is known about a meter as a dictionary for JSON."""
    return {**asdict(info), "notes": list(info.notes)}


def describe_all(found: Sequence[Found]) -> MetersAnswer:
    """Return what `probe` says of meters."""
    return MetersAnswer(
        available=[describe(item.info) for item in found if not isinstance(item, Missing)],
        missing=[asdict(item) for item in found if isinstance(item, Missing)],
    )


def choose(wanted: str, found: Sequence[Found]) -> tuple[list[Meter], str]:
    """Return the meters that a campaign reads, and why these.

    Args:
        wanted: `auto`, `none`, or `NAME[:CHANNEL]`, one that counts and after a comma one that
            checks it; without options (see `meter_options`).
        found: What the device has, best first.

    Raises:
        MeterChoiceError: A named meter is not there or cannot be used.
    """
    if wanted == NONE:
        return [], "no meter was asked for"
    if wanted == AUTO:
        return _best(found)
    names = wanted.split(",")
    if len(names) > MAX_METERS or len(set(names)) < len(names):
        raise MeterChoiceError(
            f"meter '{wanted}' names more than one that counts and one that checks it, or one twice"
        )
    meters = [_named(name, found) for name in names]
    if len(meters) > 1 and meters[0] is meters[1]:
        raise MeterChoiceError(f"meter '{wanted}' names the same meter twice")
    return meters, "asked for by name"


def _best(found: Sequence[Found]) -> tuple[list[Meter], str]:
    """Return the first meter that sees all that a variant uses: the backends come by preference."""
    in_the_way: list[str] = []
    parts: list[str] = []
    for item in found:
        if isinstance(item, Missing):
            in_the_way.append(f"{item.name}: {item.reason}; {item.remedy}")
        elif item.info.kind != ESTIMATE and item.info.is_partial:
            parts.append(f"{_name(item.info)} ({item.info.domain})")
        elif item.info.kind != ESTIMATE:
            words = "a counter of joules" if item.info.kind == COUNTER else "a gauge of power"
            why = f"the first choice of what can be read on this device: {words}"
            if in_the_way:
                why += f"; before it would come {in_the_way[0]}"
            return [item], why
    if parts:
        more = f", and {len(parts) - MAX_PARTS_TOLD} more" if len(parts) > MAX_PARTS_TOLD else ""
        in_the_way.append(
            f"{', '.join(parts[:MAX_PARTS_TOLD])}{more}: each sees, as far as is known, a part only "
            "of what a variant on the processor uses; to take one nevertheless, name it by --meter"
        )
    return [], "; ".join(in_the_way) or (
        "this device has no meter that is known here; joulemap probe lists what each one needs"
    )


def _named(name: str, found: Sequence[Found]) -> Any:
    backend, _, channel = name.partition(":")
    for item in found:
        if isinstance(item, Missing) or item.info.name != backend:
            continue
        if channel in ("", item.info.channel):
            return item
        if hasattr(item, "with_setting"):
            try:
                return item.with_setting(channel)
            except MeterError as error:
                raise MeterChoiceError(f"meter '{name}': {error}") from error
    for item in found:
        if not isinstance(item, Missing) or item.name != backend:
            continue
        if not channel or item.channel in ("", channel):
            raise MeterChoiceError(f"meter '{name}': {item.reason}; {item.remedy}")
    known = sorted(
        f"{item.info.name}:{item.info.channel}" for item in found if not isinstance(item, Missing)
    )
    raise MeterChoiceError(
        f"this device has no meter '{name}'; it has: {', '.join(known) or 'none'} (joulemap probe lists "
        "what each meter needs)"
    )


def wanted_again(wanted: str, before: Sequence[dict[str, Any]] | None) -> str:
    """Return what a fresh agent reads: what the first one of the campaign chose, whatever is best now.

    Args:
        wanted: What was asked for.
        before: What the first agent chose (see `meter.remembered`); None for the first one.
    """
    if wanted != AUTO or before is None:
        return wanted
    return ",".join(f"{item['name']}:{item['channel']}" for item in before) or NONE


def choose_usable(
    wanted: str,
    found: Sequence[Found],
    use: Callable[[Meter], ChosenMeter],
    settings: VisitSettings,
) -> tuple[list[ChosenMeter], str]:
    """Return the meters that a campaign reads, ready for use, and why these.

    One that `auto` took and that proves unusable gives way to the next one; without any the
    campaign goes on without energy, and the reasons are told.

    Args:
        wanted: See `choose`.
        found: What the device has, best first.
        use: Calibrates a meter and watches its updates.
        settings: What windows have to be like.

    Raises:
        MeterChoiceError: A named meter is not there or cannot be used.
    """
    left = list(found)
    while True:
        meters, why = choose(wanted, left)
        try:
            chosen = [use(meter) for meter in meters]
            check_windows(chosen, settings)
        except MeterChoiceError as error:
            if wanted != AUTO:
                raise MeterChoiceError(f"{error}; {_OTHERWISE}") from error
            (failed,) = (meter.info for meter in meters)
            unusable = Missing(failed.name, failed.channel, str(error), _OTHERWISE)
            left = [unusable if item in meters else item for item in left]
        else:
            return chosen, why


def calibrate(
    meter: Meter,
    run: Callable[[], None],
    clock: MachineClock,
    is_cancelled: Callable[[], bool] = lambda: False,
) -> None:
    """Let a meter that must learn what its values mean see a step of the load.

    Args:
        meter: The meter; most have nothing to learn.
        run: Calls the reference variant once: the load.
        clock: The machine's clock.
        is_cancelled: Asked now and then; when true the agent ends.

    Raises:
        MeterChoiceError: It could not learn.
    """
    learn = getattr(meter, "calibrate", None)
    if learn is None:
        return

    def burn(duration_s: float) -> None:
        if is_cancelled():
            raise SystemExit(0)
        end = clock.monotonic_s() + duration_s
        while clock.monotonic_s() < end:
            run()

    try:
        learn(burn, clock.sleep, clock=clock.monotonic_s)
    except MeterError as error:
        raise MeterChoiceError(f"meter {_name(meter.info)} cannot be used: {error}") from error


def enrol(
    meter: Meter, clock: MachineClock, is_cancelled: Callable[[], bool] = lambda: False
) -> ChosenMeter:
    """Return the meter with the time between its updates, seen by reading it in quick succession.

    Raises:
        MeterChoiceError: It cannot be read, or is a counter that does not count.
    """
    info = meter.info
    log = PowerLog(meter, clock)
    limit = min(MAX_ENROL_S, max(ENROL_S, ENROL_PERIODS * (info.update_period_s or 0.0)))
    began = clock.monotonic_s()
    pause = max(FINE_S, info.read_s)
    changes: list[float] = []
    while len(changes) <= ENROL_UPDATES:
        spent = clock.monotonic_s() - began
        is_unknown = info.update_period_s is None and len(changes) < FEW_UPDATES
        if spent >= (MAX_ENROL_S if is_unknown else limit):
            break
        if is_cancelled():
            raise SystemExit(0)
        if log.read() and len(log.values) > 1 and log.values[-1] != log.values[-2]:
            changes.append((log.before_s[-1] + log.after_s[-1]) / 2)
        if log.gone or (log.failed_s and not log.values and len(log.failed_s) > 20):
            break
        clock.sleep(pause)
    if not log.values:
        raise MeterChoiceError(f"meter {_name(info)} gives no reading: {log.reason}")
    state = state_of(meter)
    gaps = [b - a for a, b in zip(changes, changes[1:])]
    if len(gaps) >= FEW_UPDATES - 2:
        # A value that repeats makes a gap of two periods: the lower half tells about one. A meter
        # that is read not much more often than it updates shows gaps that differ: their mean is one.
        about = median(sorted(gaps)[: (len(gaps) + 1) // 2 + 1])
        single = [gap for gap in gaps if gap <= SINGLE_GAP * about]
        return ChosenMeter(meter, max(sum(single) / len(single), pause), state)
    if info.kind != SAMPLER and not changes:
        raise MeterChoiceError(
            f"meter {_name(info)} did not change in {spent:.0f} s: it is stuck, or nothing is "
            "measured by it"
        )
    stated = info.update_period_s
    if stated is None:
        stated = median(gaps) if gaps else max(UNKNOWN_GAUGE_PERIOD_S, info.averaging_s)
    return ChosenMeter(meter, stated, state)


def describe_chosen(item: ChosenMeter, why: str) -> dict[str, Any]:
    """Return what a campaign's record says about a meter in use."""
    return {
        **describe(item.info),
        "observed_update_period_s": float(f"{item.period_s:.4g}"),
        "state": item.state,
        "why": why,
    }


def check_windows(chosen: Sequence[ChosenMeter], settings: VisitSettings) -> None:
    """Refuse meters that are too slow for the protocol's windows.

    Raises:
        MeterChoiceError: A window would last longer than it may.
    """
    most = settings.max_energy_window_s
    for item in chosen:
        least = least_window_s(item.info, item.period_s, settings)
        if least > most:
            raise MeterChoiceError(
                f"meter {_name(item.info)} updates every {item.period_s:.3g} s and needs windows of "
                f"{least:.0f} s; the protocol allows {most:.0f} s: give more with --max-energy-window-s"
            )


def same_rail(chosen: Sequence[ChosenMeter]) -> str:
    """Return what is to be said about two meters that claim the same supply; empty if nothing."""
    rails = [item.info.rail for item in chosen if item.info.rail]
    if len(rails) > 1 and rails[0] == rails[1]:
        return (
            f"both meters read the supply '{rails[0]}': their joules are compared, never added up"
        )
    return ""


def _name(info: MeterInfo) -> str:
    return f"{info.name}:{info.channel}"
