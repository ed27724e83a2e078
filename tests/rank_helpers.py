"""A task in several processes that gloo joins, as `torchrun` would start them."""

import multiprocessing
import os
import socket
import traceback
from pathlib import Path

import torch

from zssbir_cli.compute import distributed


def _rank(rank: int, world: int, port: int, out: Path, task, arguments) -> None:
    os.environ.update(
        RANK=str(rank),
        WORLD_SIZE=str(world),
        LOCAL_RANK=str(rank),
        MASTER_ADDR="127.0.0.1",
        MASTER_PORT=str(port),
    )
    torch.set_num_threads(1)
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
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    out.mkdir(parents=True, exist_ok=True)
    context = multiprocessing.get_context("fork")
    processes = [
        context.Process(target=_rank, args=(r, world, port, out, task, arguments)) for r in range(world)
    ]
    for process in processes:
        process.start()
    try:
        for process in processes:
            process.join(120)
    finally:
        hung = [p.pid for p in processes if p.is_alive()]
        for process in processes:
            process.kill()
    assert not hung, "ranks wait for each other for ever"
    errors = [p.read_text() for p in sorted(out.glob("*.txt"))]
    assert not errors, "\n".join(errors)
    return [torch.load(out / f"{r}.pt", weights_only=False) for r in range(world)]
