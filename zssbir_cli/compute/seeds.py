"""Seeding: of the network a run starts from, of each of its steps, and of its frozen start when that is evaluated."""

import hashlib

import torch


def seed_all(*key: int) -> None:
    """Seed the generators of the CPU and of the GPUs in use from numbers such as (seed, step, rank).

    Not `torch.manual_seed`: where there is no GPU it records the call stack each time, half a millisecond.
    """
    digest = hashlib.sha256(repr(key).encode()).digest()
    seed = int.from_bytes(digest[:8], "big") >> 1
    torch.default_generator.manual_seed(seed)
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.manual_seed_all(seed)
