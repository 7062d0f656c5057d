"""The run: networks, sampling, protocol, campaign, report, command line."""

if __name__ == "profiler":  # found because the checkout itself is on Python's path
    raise ImportError(
        "this folder is imported as joulemap.profiler: run Python with -P, or from another folder"
    )

from importlib import import_module
from typing import TYPE_CHECKING, Any

from joulemap import moved_modules

if TYPE_CHECKING:
    from . import networks
    from .campaign.layers import profile_layers
    from .campaign.observer import Observer
    from .campaign.plan import VisitPlan
    from .campaign.protocol import Protocol
    from .campaign.run import profile
    from .campaign.sampling import Sampler, register_sampler, sample
    from .campaign.settings import CampaignSettings
    from .command_line.outside_commands import register_command

__all__ = [
    "CampaignSettings",
    "Observer",
    "Protocol",
    "Sampler",
    "VisitPlan",
    "networks",
    "profile",
    "profile_layers",
    "register_command",
    "register_sampler",
    "sample",
]

_HOMES = {
    "CampaignSettings": "campaign.settings",
    "Observer": "campaign.observer",
    "Protocol": "campaign.protocol",
    "Sampler": "campaign.sampling",
    "VisitPlan": "campaign.plan",
    "profile": "campaign.run",
    "profile_layers": "campaign.layers",
    "register_command": "command_line.outside_commands",
    "register_sampler": "campaign.sampling",
    "sample": "campaign.sampling",
}


# Where modules lay before they came into wings: their old names work, with a warning, until 0.3.
moved_modules.keep_old_names(
    __name__,
    {
        "advice": "campaign.advice",
        "cli": "command_line.cli",
        "console": "command_line.console",
        "correction_words": "campaign.correction_words",
        "demo": "command_line.demo",
        "device_list": "command_line.device_list",
        "device_text": "command_line.device_text",
        "devices": "campaign.devices",
        "energy_advice": "campaign.energy_advice",
        "findings": "campaign.findings",
        "fitting": "command_line.fitting",
        "generic_widths": "templates.generic_widths",
        "layer_join": "campaign.layer_join",
        "layer_nodes": "templates.layer_nodes",
        "layers": "campaign.layers",
        "link_token": "campaign.steps.link_token",
        "metering": "campaign.metering",
        "noise": "campaign.steps.noise",
        "plan": "campaign.plan",
        "plan_text": "campaign.plan_text",
        "profile_options": "command_line.profile_options",
        "protocol": "campaign.protocol",
        "sampling": "campaign.sampling",
        "standard_streams": "command_line.standard_streams",
        "start": "command_line.start",
        "starvation": "campaign.starvation",
        "tables": "command_line.tables",
        "transfer_points": "campaign.transfer_points",
        "weight_rules": "templates.weight_rules",
    },
)


def __getattr__(name: str) -> Any:
    # Lazy: the command line lives in this package, and `joulemap --help` must not wait for torch.
    if name == "networks":
        return import_module(".networks", __name__)
    if name in _HOMES:
        return getattr(import_module(f".{_HOMES[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
