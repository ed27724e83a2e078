"""From a plan of item indices to a stream of batches, the same for any number of workers and ranks.

One stream runs over all epochs, so that workers stay warm and prefetch across epoch boundaries; resuming
starts the stream at a batch.
"""

import multiprocessing
import signal
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from threading import current_thread, main_thread
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset, default_collate

from zssbir_cli.compute import distributed
from zssbir_cli.compute.memory import ADVICE, keep_freed_memory, out_of_shared_memory
from zssbir_cli.errors import DataError, UsageError, ZssbirError
from zssbir_cli.methods.base import ItemKey, TrainData


@dataclass(frozen=True)
class _Failure:
    """A user error on its way from a worker to the main process (a raised one would arrive as a
    traceback)."""

    kind: type[ZssbirError]
    message: str


class _Batches(Dataset[Any]):
    """Keys of a whole batch -> collated batch, or the error that kept it from being read."""

    def __init__(self, items: Dataset[Any]) -> None:
        self._items = items

    def __getitems__(self, keys: list[Any]) -> Any:
        try:
            return default_collate([self._items[key] for key in keys])
        except ZssbirError as error:
            return _Failure(type(error), str(error))
        except OSError as error:
            return _Failure(DataError, f"cannot read images: {error}; run `zssbir prepare` again")

    def __getitem__(self, key: Any) -> Any:  # the loader fetches whole batches
        return self.__getitems__([key])


def _keys(data: TrainData, first: int, stop: int, overfit: int | None) -> Iterator[list[ItemKey]]:
    """Keys of this rank's share of batches `first` to `stop` (counted over the whole run)."""
    per_epoch = data.plan.steps_per_epoch
    rows, epoch = None, -1
    for number in range(first, stop):
        place = divmod(number, per_epoch) if overfit is None else (0, number % min(overfit, per_epoch))
        if rows is None or place[0] != epoch:
            epoch = place[0]
            rows = data.plan.batches(epoch)
            if len(rows) != per_epoch:
                raise UsageError(f"the plan of epoch {epoch} has {len(rows)} batches instead of {per_epoch}")
        batch = rows[place[1]]
        size = len(batch)
        local = range(size)[distributed.local_rows(size)]
        yield [(epoch, place[1] * size + i, tuple(int(v) for v in batch[i])) for i in local]


def quiet_worker(_: int) -> None:
    """Start of a data-loading process: Ctrl-C and SIGTERM are the main process's to handle; one thread
    each."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    torch.set_num_threads(1)


def _why_it_died(error: BaseException) -> str:
    lines = [" ".join(line.split()) for line in str(error).splitlines() if line.strip()]
    if out_of_shared_memory(error):
        return (
            "the loading processes have no room in shared memory (/dev/shm is full): enlarge it (docker run --shm-size=1g), "
            "or load in the main process (--workers 0, in training --set data.workers=0)"
        )
    if any(line.startswith("MemoryError") for line in lines[-1:]):
        return f"out of memory in a data-loading process: {ADVICE}"
    return (
        f"a data-loading process died ({lines[-1][:160] if lines else type(error).__name__}); out of memory? Use fewer "
        "(--workers, in training data.workers; 0 loads in the main process)"
    )


def _same(value: Any) -> Any:
    return value


class Stream(Iterator[Any]):
    """Iterator over the batches of given keys; `waited` counts the seconds spent waiting for them.

    Raises the DataError of an unreadable item, or one that says that a worker process died.
    """

    def __init__(
        self,
        items: Dataset[Any],
        batches: Iterable[list[Any]],
        *,
        workers: int,
        pin: bool,
    ) -> None:
        keep_freed_memory()  # also for those who call from Python; loader processes inherit it
        self.waited = 0.0
        fork = workers > 0 and "fork" in multiprocessing.get_all_start_methods()
        loader = DataLoader(
            _Batches(items),
            batch_sampler=batches,
            num_workers=workers,
            collate_fn=_same,
            pin_memory=pin,
            worker_init_fn=quiet_worker if workers else None,
            multiprocessing_context="fork" if fork else None,
            prefetch_factor=4 if workers else None,
            generator=torch.Generator(),  # leaves the global generator alone
        )
        before = set(multiprocessing.active_children())
        self._batches: Iterator[Any] | None = iter(loader)
        self._workers = set(multiprocessing.active_children()) - before
        if workers and hasattr(signal, "SIGCHLD") and current_thread() is main_thread():
            # PyTorch would raise a dead worker's error from a signal handler, that is anywhere, also in the
            # middle of an optimizer step; without it, `__next__` notices within five seconds
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)

    def __next__(self) -> Any:
        if self._batches is None:
            raise StopIteration
        start = time.perf_counter()
        try:
            batch = next(self._batches)
        except (RuntimeError, OSError, EOFError) as error:  # the last two: it died while handing over
            if isinstance(error, RuntimeError) and "DataLoader worker" not in str(error):
                raise
            raise DataError(_why_it_died(error)) from error
        self.waited += time.perf_counter() - start
        if isinstance(batch, _Failure):
            raise batch.kind(batch.message)
        return batch

    def close(self) -> None:
        """Stop the workers; one that hangs (on a lock that a dead one took along) is killed."""
        self._batches = None
        for worker in self._workers:
            worker.join(1)
            worker.kill()
            worker.join()
        self._workers = set()


def training_stream(
    data: TrainData, *, first: int, stop: int, workers: int, pin: bool, overfit: int | None = None
) -> Stream:
    """This rank's share of global batches `first` to `stop`, counted over the whole run.

    `overfit`: use only the first so many batches of epoch 0, with the same augmentation, again and again.
    """
    return Stream(data.items, _keys(data, first, stop, overfit), workers=workers, pin=pin)
