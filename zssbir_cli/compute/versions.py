"""Versions of the libraries whose arithmetic a stored result depends on."""

from functools import cache
from importlib.metadata import PackageNotFoundError, version


@cache
def _short(package: str) -> str:
    try:
        return ".".join(version(package).split(".")[:2])
    except PackageNotFoundError:
        return ""


def library_versions(*packages: str) -> dict[str, str]:
    """`{"torch": "2.9"}`: major and minor version of each installed package, by its name on PyPI."""
    return {package: found for package in packages if (found := _short(package))}
