"""Logs that stay tensors until they are printed, and the watch over losses that are no longer finite."""

import math
from collections import deque
from collections.abc import Mapping

import torch
from torch import Tensor

from zssbir_cli.compute import distributed
from zssbir_cli.errors import DivergedError

STREAK = 3  # non-finite losses in a row that end the run


class Readout:
    """Carries a small tensor of each step to the host without making the host wait for a GPU.

    On a GPU, values arrive `lag` steps late, always the same number, so that all ranks act at the same step.
    """

    def __init__(self, device: torch.device, lag: int = 2) -> None:
        self._cuda = device.type == "cuda"
        self._lag = lag if self._cuda else 0
        self._queue: deque[tuple[int, Tensor, torch.cuda.Event | None]] = deque()

    def push(self, step: int, values: Tensor) -> list[tuple[int, list[float]]]:
        """Send `values` of `step`; returns what has arrived, oldest first."""
        event = None
        if self._cuda:
            host = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
            host.copy_(values, non_blocking=True)
            event = torch.cuda.Event()  # type: ignore[no-untyped-call]
            event.record()
            values = host
        self._queue.append((step, values, event))
        return self._arrived(self._lag)

    def drain(self) -> list[tuple[int, list[float]]]:
        """Wait for everything that is on its way."""
        return self._arrived(0)

    def _arrived(self, keep: int) -> list[tuple[int, list[float]]]:
        result = []
        while len(self._queue) > keep:
            step, values, event = self._queue.popleft()
            if event is not None:
                event.synchronize()
            result.append((step, values.tolist()))
        return result


class Monitor:
    """Collects the logs of each step; stops the run after three non-finite losses in a row.

    A step whose loss is not finite on any rank is skipped by the optimizer on every rank (`flags[0]` is what
    fused optimizers and GradScaler call `found_inf`).
    """

    def __init__(self, device: torch.device) -> None:
        self._readout = Readout(device)
        self._recent: deque[tuple[int, Mapping[str, Tensor]]] = deque(maxlen=16)
        self._streak = 0
        self._pending: list[Mapping[str, Tensor]] = []
        self.skipped = 0
        self._values: list[dict[str, float]] = []

    def state(self) -> dict[str, int]:
        """What a checkpoint keeps."""
        return {"streak": self._streak, "skipped": self.skipped}

    def restore(self, state: Mapping[str, int], pending: list[dict[str, float]]) -> None:
        """Go on from what `state` and `pending` returned."""
        self._streak, self.skipped, self._values = state["streak"], state["skipped"], list(pending)

    @staticmethod
    def flags(loss: Tensor, stop: bool) -> Tensor:
        """float32 [2] on the device, the same on all ranks: is the loss not finite, was a stop asked for."""
        bad = (~torch.isfinite(loss.detach())).float().reshape(1)
        asked = torch.full((1,), float(stop), device=loss.device)
        return distributed.all_max_(torch.cat([bad, asked]))

    def add(self, step: int, logs: Mapping[str, Tensor], flags: Tensor) -> bool:
        """Take in a finished step. Returns whether to stop (decided by all ranks at the same step).

        Raises DivergedError naming step and term.
        """
        self._pending.append(logs)
        self._recent.append((step, logs))
        return self._judge(self._readout.push(step, flags))

    def drain(self) -> bool:
        """Wait for the verdict on all steps so far (before a checkpoint)."""
        return self._judge(self._readout.drain())

    def _judge(self, arrived: list[tuple[int, list[float]]]) -> bool:
        stop = False
        for step, (bad, asked) in arrived:
            self._streak = self._streak + 1 if bad else 0
            self.skipped += bool(bad)
            stop = stop or bool(asked)
            if self._streak >= STREAK:
                raise DivergedError(
                    f"the loss was not finite in {STREAK} steps in a row, up to step {step + 1} "
                    f"({self._terms(step)}); checkpoints from before are unharmed: lower optim.lr, set "
                    "optim.clip_norm, or use train.precision=fp32"
                )
        return stop

    def _terms(self, step: int) -> str:
        logs = next((logs for s, logs in self._recent if s == step), {})
        bad = [
            name for name, value in logs.items() if name != "loss" and not bool(torch.isfinite(value).all())
        ]
        return f"not finite: {', '.join(bad)}" if bad else "term: loss"

    def pending(self) -> list[dict[str, float]]:
        """Values of the steps since the last `flush`, as plain numbers (kept in a checkpoint)."""
        names = sorted(self._pending[0]) if self._pending else []
        if self._pending:
            table = torch.stack(
                [torch.stack([logs[n].detach().float().reshape(()) for n in names]) for logs in self._pending]
            )
            rows = distributed.all_mean(table).tolist()
            self._values += [dict(zip(names, row, strict=True)) for row in rows]
            self._pending = []
        return self._values

    def flush(self) -> dict[str, float]:
        """Means over the steps since the last flush and over ranks; non-finite steps are left out."""
        rows = self.pending()
        self._values = []
        means = {}
        for name in rows[0] if rows else ():
            values = [row[name] for row in rows if math.isfinite(row.get(name, math.nan))]
            means[name] = math.fsum(values) / len(values) if values else math.nan
        return means
