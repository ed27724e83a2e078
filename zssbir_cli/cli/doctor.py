"""`zssbir doctor`."""

from pathlib import Path
from typing import Annotated

import typer

from zssbir_cli.cli import options


def doctor(
    data: Annotated[
        Path | None, typer.Option("--data", metavar="DIR", help="Also examine a prepared data set.")
    ] = None,
    run: Annotated[
        str | None,
        typer.Option("--run", metavar="RUN", help="Also examine a run: its folder, its name, or latest."),
    ] = None,
    runs: options.Runs = Path("runs"),
    network: Annotated[
        bool, typer.Option("--network/--no-network", help="Try whether weights can be downloaded.")
    ] = True,
    as_json: options.Json = False,
) -> None:
    """Examine the installation, the machine, a data set or a run, and say how to mend what is wrong.

    Example: zssbir doctor --data data/mine --run latest
    """
    import json

    from zssbir_cli.cli.console import table
    from zssbir_cli.cli.display import progress
    from zssbir_cli.names import counted
    from zssbir_cli.workflows.doctor import PROBLEM, WARNING, diagnose

    with progress("doctor: looking at versions first") as display:
        found = diagnose(data=data, run=run, runs=runs, network=network, progress=display)
    if as_json:
        keys = ("what", "state", "found", "mend")
        print(json.dumps([{key: getattr(f, key) for key in keys} for f in found], indent=1))
    else:
        rows = [(f.state, f.what, f"{f.found} -> {f.mend}" if f.mend else f.found) for f in found]
        table(("state", "what", "found -> what to do"), rows)
    bad, warned = ([f for f in found if f.state == state] for state in (PROBLEM, WARNING))
    if not bad and not as_json:
        print(counted(len(warned), "warning") if warned else "all is well")
    if bad:
        more = f" (and {len(bad) - 1} more)" if len(bad) > 1 else ""
        raise bad[0].error(
            f"{bad[0].what}: {bad[0].found}{more}" + (f"; {bad[0].mend}" if bad[0].mend else "")
        )
