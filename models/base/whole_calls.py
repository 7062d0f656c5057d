"""Methods that change a predictor as a whole: what fails, or only tries, leaves no trace in it."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

# Those that set attributes, and keep them where they come to their end.
FITTING = ("fit", "fit_dataset", "fit_profiles", "ready")
# Those that set attributes only on their way.
TRYING = ("predict_held_out", "select")


def make_calls_whole(cls: type) -> None:
    """Let the methods that a class defines keep the predictor as it was where they fail.

    Attributes are replaced, never changed in place, so the former ones are put back.

    Args:
        cls: A class of predictors.
    """
    for name in (*FITTING, *TRYING):
        method = vars(cls).get(name)
        if callable(method):
            setattr(cls, name, _whole(method, is_kept=name in FITTING))


def _whole(method: Callable[..., Any], *, is_kept: bool) -> Callable[..., Any]:
    @wraps(method)
    def call(self: Any, *arguments: Any, **named: Any) -> Any:
        before = vars(self).copy()
        try:
            result = method(self, *arguments, **named)
        except BaseException:
            self.__dict__ = before
            raise
        if not is_kept:
            self.__dict__ = before
        return result

    return call
