"""`zssbir doctor`."""

from pathlib import Path

import typer

from zssbir_cli.cli import options
from zssbir_cli.cli.options import flag, option


def doctor(
    context: typer.Context,
    data: Path | None = option(None, "DIR", "Also check a prepared data set."),
    run: str | None = option(None, "RUN", "Also check a run: its folder, its name, or latest."),
    runs: options.Runs = Path("runs"),
    network: bool = flag("Test whether weights can be downloaded.", "--network/--no-network", default=True),
    as_json: options.Json = False,
) -> None:
    """Check the installation, the machine, a data set or a run, and say how to fix what is wrong.

    Example: zssbir doctor --data data/mine --run latest
    """
    import json

    from zssbir_cli.cli.console import table
    from zssbir_cli.cli.display import progress
    from zssbir_cli.errors import UsageError
    from zssbir_cli.names import counted
    from zssbir_cli.workflows.doctor import PROBLEM, WARNING, diagnose

    if run is None and "runs" in options.given(context):
        raise UsageError("--runs has no effect without --run; name a run, or leave it out")
    with progress("doctor: checking versions") as display:
        found = diagnose(data=data, run=run, runs=runs, network=network, progress=display)
    if as_json:
        keys = ("what", "state", "found", "mend")
        print(json.dumps([{key: getattr(f, key) for key in keys} for f in found], indent=1))
    else:
        rows = [(f.state, f.what, f"{f.found} -> {f.mend}" if f.mend else f.found) for f in found]
        table(("state", "what", "found -> what to do"), rows)
    bad, warned = ([f for f in found if f.state == state] for state in (PROBLEM, WARNING))
    if not bad and not as_json:
        print(counted(len(warned), "warning") if warned else "no problems found")
    if bad:
        more = f" (and {len(bad) - 1} more)" if len(bad) > 1 else ""
        raise bad[0].error(
            f"{bad[0].what}: {bad[0].found}{more}" + (f"; {bad[0].mend}" if bad[0].mend else "")
        )
