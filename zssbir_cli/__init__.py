"""zssbir: zero-shot sketch-based image retrieval, from a folder of pictures to an honest number.

The Python API (docs/python-api.md) is what the command line does, as functions: `prepare`, `train`, `load`, `embed`,
`search`, `evaluate`. They are imported on first use, so that `import zssbir_cli` loads neither PyTorch nor NumPy.
"""

from typing import TYPE_CHECKING, Any

from zssbir_cli.errors import CheckpointError, DataError, DivergedError, Interrupted, UsageError, ZssbirError

if TYPE_CHECKING:
    from zssbir_cli.data.prepared import PreparedSet
    from zssbir_cli.workflows.embed import embed
    from zssbir_cli.workflows.eval import evaluate_file
    from zssbir_cli.workflows.eval import evaluate_run as evaluate
    from zssbir_cli.workflows.load import Retriever, load
    from zssbir_cli.workflows.prepare import prepare
    from zssbir_cli.workflows.search import search_sketches as search
    from zssbir_cli.workflows.train import train

__version__ = "0.1.0"
__all__ = [
    "CheckpointError", "DataError", "DivergedError", "Interrupted", "PreparedSet", "Retriever", "UsageError", "ZssbirError",
    "__version__", "embed", "evaluate", "evaluate_file", "load", "prepare", "search", "train",
]  # fmt: skip

_PLACES = {
    "PreparedSet": "data.prepared:PreparedSet",
    "Retriever": "workflows.load:Retriever",
    "embed": "workflows.embed:embed",
    "evaluate": "workflows.eval:evaluate_run",
    "evaluate_file": "workflows.eval:evaluate_file",
    "load": "workflows.load:load",
    "prepare": "workflows.prepare:prepare",
    "search": "workflows.search:search_sketches",
    "train": "workflows.train:train",
}


def __getattr__(name: str) -> Any:
    """Import a part of the API when it is first asked for (PEP 562)."""
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    module, _, attribute = _PLACES[name].partition(":")
    value = globals()[name] = getattr(import_module(f"{__name__}.{module}"), attribute)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
