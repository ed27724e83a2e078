"""A task in several processes that gloo joins, as `torchrun` would start them."""

import faulthandler
import multiprocessing
import os
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
import torch.distributed as dist

from zssbir_cli.compute import distributed

PATIENCE = 240
"""Seconds after which ranks that have not ended count as hanging: a busy machine takes its time."""


@contextmanager
def meeting_place() -> Iterator[Mapping[str, str]]:
    """What ranks need in their environment to meet in a store of this process, as torchrun's agent holds one: a free port
    that rank 0 is to open later may be another's by then."""
    store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    yield {
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(store.port), "TORCHELASTIC_USE_AGENT_STORE": "True",
        "TORCHELASTIC_RESTART_COUNT": "0",
    }  # fmt: skip


def _rank(rank: int, world: int, meet: Mapping[str, str], out: Path, task, arguments) -> None:
    os.environ.update(RANK=str(rank), WORLD_SIZE=str(world), LOCAL_RANK=str(rank), **meet)
    torch.set_num_threads(1)
    faulthandler.dump_traceback_later(0.8 * PATIENCE, file=(out / f"{rank}.stack").open("w"))
    try:
        with distributed.session(torch.device("cpu")):
            result = task(*arguments)
        torch.save(result, out / f"{rank}.pt")
    except BaseException:
        (out / f"{rank}.txt").write_text(traceback.format_exc())
        os._exit(1)
    os._exit(0)


def run_ranks(out: Path, world: int, task, *arguments) -> list:
    """`task` in `world` forked processes joined by gloo; returns their results in rank order."""
    out.mkdir(parents=True, exist_ok=True)
    context = multiprocessing.get_context("fork")
    with meeting_place() as meet:
        processes = [
            context.Process(target=_rank, args=(r, world, meet, out, task, arguments)) for r in range(world)
        ]
        for process in processes:
            process.start()
        try:
            for process in processes:
                process.join(PATIENCE)
        finally:
            hung = [p.pid for p in processes if p.is_alive()]
            for process in processes:
                process.kill()
    stacks = "\n".join(p.read_text() for p in sorted(out.glob("*.stack")))
    assert not hung, f"ranks wait for each other for ever:\n{stacks}"
    errors = [p.read_text() for p in sorted(out.glob("*.txt"))]
    assert not errors, "\n".join(errors)
    return [torch.load(out / f"{r}.pt", weights_only=False) for r in range(world)]
