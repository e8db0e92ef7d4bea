"""What a training keeps on disk while it runs, so that it goes on after Ctrl-C, a kill or a full disk.

    log.jsonl                      one line every `log_every` steps, and one for each look at the validation data
    checkpoints/last.ckpt          the running stage: weights, averages, optimiser, step, what the training has taken
    checkpoints/model.safetensors  the weights after the last finished stage, and (in its header) which one that was; before
                                   the first, those that were taken from another run

Both checkpoints are written beside the old ones and then moved into place, so at every moment one of them is whole.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

try:
    import fcntl
except ImportError:  # Windows has no such locks
    fcntl = None  # type: ignore[assignment]

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from diled.errors import TrainingError
from diled.training.throughput import Throughput

__all__ = ["Checkpoints", "Log", "NotFinite", "Spent", "alone_in", "check_finite"]


class NotFinite(TrainingError):
    """A term or a weight is NaN or infinite."""


class Spent:
    """Seconds, speed, warnings and choices of a training, over all the sessions in which it ran."""

    def __init__(
        self,
        seconds: float = 0.0,
        cpu_seconds: float = 0.0,
        warnings: dict[str, str] | None = None,
        kept: dict[str, dict[str, Any]] | None = None,
        throughput: dict[str, Any] | None = None,
    ) -> None:
        self.seconds, self.cpu_seconds = seconds, cpu_seconds
        self.warnings = dict(warnings or {})
        """Sign -> what was said when it was first seen."""
        self.kept = dict(kept or {})
        """Stage -> the look whose weights it ended on, where the best ones are kept."""
        self.throughput = Throughput(**(throughput or {}))
        self.started = time.perf_counter(), time.process_time()

    def go_on(self, record: dict[str, Any]) -> None:
        """Take up the totals of an earlier session; the clock goes on from now as it has since the start."""
        earlier = Spent(**record)
        for name in ("seconds", "cpu_seconds", "warnings", "kept", "throughput"):
            setattr(self, name, getattr(earlier, name))

    def record(self) -> dict[str, Any]:
        """The totals so far."""
        wall, cpu = self.started
        return {
            "seconds": self.seconds + time.perf_counter() - wall,
            "cpu_seconds": self.cpu_seconds + time.process_time() - cpu,
            "warnings": dict(self.warnings),
            "throughput": self.throughput.record(),
            **({"kept": dict(self.kept)} if self.kept else {}),
        }


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Within the block no other process trains in this folder; the lock ends with the process, and leaves nothing behind.

    Raises:
        TrainingError: another one does.
    """
    if fcntl is None or not os.access(folder, os.R_OK):
        yield
        return
    place = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(place, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise TrainingError(f"{folder} is being trained by another process: wait for it, or stop it.") from None
        except OSError:  # a file system without locks
            pass
        yield
    finally:
        os.close(place)


class Checkpoints:
    """The checkpoints of one run.

    Args:
        run: folder of the run.
    """

    def __init__(self, run: Path) -> None:
        self.run, self.folder = run, run / "checkpoints"
        self.last, self.weights = self.folder / "last.ckpt", self.folder / "model.safetensors"

    def clear(self) -> None:
        """Forget whatever an earlier training left in the same folder."""
        for path in (self.last, self.weights):
            path.unlink(missing_ok=True)

    def finished(self, model: nn.Module) -> tuple[int, dict[str, Any]]:
        """How many stages are finished, and what they took; `model` gets the weights after the last of them.

        Raises:
            TrainingError: the weights are damaged, or are those of another model.
        """
        if not self.weights.exists():
            return 0, {}
        try:
            with safe_open(self.weights, "pt") as file:
                record = json.loads(file.metadata()["diled"])
            model.load_state_dict(load_file(self.weights))
            return record.pop("finished"), record
        except (SafetensorError, OSError, RuntimeError, ValueError, KeyError, TypeError) as error:
            raise TrainingError(
                f"{self.weights} cannot be read or does not fit run.json ({_first_line(error)}). "
                f"Without it, `diled train --resume {self.run}` starts from the beginning."
            ) from None

    def running(self, stage: int) -> dict[str, Any] | None:
        """The state of a stage that is under way; None where there is none, or an earlier stage's.

        Raises:
            TrainingError: the file is damaged.
        """
        if not self.last.exists():
            return None
        try:
            state = torch.load(self.last, map_location="cpu", weights_only=True)
            return state if state["diled"]["stage"] == stage else None
        except Exception as error:  # whatever a reader makes of damaged bytes
            raise TrainingError(
                f"{self.last} is truncated or damaged ({_first_line(error)}). Copy it again, or delete it: "
                f"`diled train --resume {self.run}` then starts its stage from the beginning."
            ) from None

    def write(self, path: Path, save: Callable[[Path], object]) -> None:
        """Let `save` write a file beside `path`, then move it into place.

        Raises:
            TrainingError: the disk is full or read-only; the old file stays.
        """
        partial = path.with_name(path.name + ".partial")
        try:
            save(partial)
            os.replace(partial, path)
        except (OSError, RuntimeError, SafetensorError) as error:
            kept = "The one before it is kept: once there is room" if path.exists() else "Once there is room"
            raise TrainingError(
                f"Could not save a checkpoint to {path} ({_first_line(error)}). {kept}, go on with: "
                f"diled train --resume {self.run}"
            ) from None
        finally:
            partial.unlink(missing_ok=True)

    def finish(self, model: nn.Module, stages: int, spent: Spent) -> None:
        """Keep the weights after a stage; its running state is no longer needed."""
        state = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in model.state_dict().items()}
        header = {"diled": json.dumps({"finished": stages, **spent.record()})}
        self.write(self.weights, lambda partial: save_file(state, partial, metadata=header))
        self.last.unlink(missing_ok=True)


class Log:
    """`log.jsonl`: one JSON object in each line.

    Args:
        run: folder of the run.
    """

    def __init__(self, run: Path) -> None:
        self.path = run / "log.jsonl"

    def write(self, record: dict[str, Any]) -> None:
        """Append a line."""
        with self.path.open("a") as file:
            file.write(json.dumps(record) + "\n")

    def read(self) -> list[dict[str, Any]]:
        """All whole lines; the last one may have been cut by a kill."""
        lines = self.path.read_text().splitlines() if self.path.exists() else []
        found = []
        for line in lines:
            try:
                found.append(json.loads(line))
            except ValueError:
                break
        return found

    def rewind(self, stage: str | None, step: int) -> None:
        """Forget what came after `step` of `stage`, since it will be written again; all of it where `stage` is None."""
        if not self.path.exists():
            return
        kept = [x for x in self.read() if stage is not None and (x["stage"] != stage or x["step"] <= step)]
        partial = self.path.with_name("log.partial")
        partial.write_text("".join(json.dumps(x) + "\n" for x in kept))
        os.replace(partial, self.path)


def check_finite(model: nn.Module, where: str) -> None:
    """Refuse to keep weights that are NaN or infinite.

    Raises:
        NotFinite: some are.
    """
    if not all(torch.isfinite(p).all() for p in model.parameters()):
        raise NotFinite(f"Training stopped at {where}: a gradient made the weights NaN or infinite.")


def _first_line(error: Exception) -> str:
    """What went wrong, in one line without a full stop."""
    for cause in (error, error.__context__):  # torch has its own words for a full disk
        if isinstance(cause, OSError) and cause.strerror:
            return cause.strerror
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(". ")
