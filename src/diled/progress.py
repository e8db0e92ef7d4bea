"""A live bar on standard error: what is done of what, a figure beside it, and the time that is left.

rate = (work done since the bar began) / (time since), so what an earlier process has done does not count as fast.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal, Protocol

__all__ = ["Report", "progress_bar", "watched"]


class Report(Protocol):
    """(what is being done, how much is done, of how much, nats) -> None."""

    def __call__(self, what: str, done: int, total: int, nats: float = float("nan"), /) -> None:
        """Show it; nats that are not a number are left out."""
        ...


def watched() -> bool:
    """Whether somebody may be looking: standard error is a terminal."""
    return sys.stderr.isatty()


@contextmanager
def progress_bar(shown: bool, figure: Literal["nats", "rate"]) -> Iterator[Report | None]:
    """Within the block, a function that shows how far things are; a bar appears at its first call.

    Args:
        shown: whether there is a bar at all; otherwise the block is given None.
        figure: beside the bar, the nats reported last, or how much is done in a second.
    """
    if not shown:
        yield None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        ProgressColumn,
        Task,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )
    from rich.text import Text

    class Rate(ProgressColumn):
        def render(self, task: Task) -> Text:
            return Text(f"{task.speed:,.0f}/s" if task.speed else "")

    beside = Rate() if figure == "rate" else TextColumn("{task.fields[nats]}")
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), beside)
    bar = Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=Console(stderr=True))
    tasks: dict[str, Any] = {}

    def report(what: str, done: int, total: int, nats: float = float("nan"), /) -> None:
        bar.start()
        if what not in tasks:
            tasks[what] = bar.add_task(what, total=total, completed=done, nats="")
        bar.update(tasks[what], completed=done, nats=f"{nats:.2f} nats" if nats == nats else "")

    try:
        yield report
    finally:
        if tasks:
            bar.stop()
