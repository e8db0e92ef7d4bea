"""Ctrl-C and termination signals while training: they ask to stop, and the step in progress ends first. No engine here."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from typing import Any

from diled.errors import Interrupted

__all__ = ["Signals"]

NUMBERS = (signal.SIGINT, signal.SIGTERM)


class Signals:
    """Takes SIGINT and SIGTERM within a `with` block, where this is the main thread.

    Args:
        left: says what there is to go on from.
    """

    def __init__(self, left: Callable[[], str]) -> None:
        self.left = left
        self.asked = False
        """Whether to stop after this step."""
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Signals:
        self._before = {number: signal.getsignal(number) for number in NUMBERS}
        self.listen()
        return self

    def __exit__(self, *_: object) -> None:
        if threading.current_thread() is threading.main_thread():
            for number, handler in self._before.items():
                signal.signal(number, handler)

    def listen(self) -> None:
        """Take the signals; once more, where others have put handlers of their own before these."""
        if threading.current_thread() is threading.main_thread():
            for number in NUMBERS:
                signal.signal(number, self._ask)

    def _ask(self, number: int, frame: Any) -> None:
        """Stop after the step in progress; a second Ctrl-C stops at once."""
        if self.asked and number == signal.SIGINT:
            raise Interrupted(f"Stopped at once. {self.left()}")
        self.asked = True
