"""What every section of a recipe is: immutable and strict. Imports no torch."""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator

LARGEST = 2**63 - 1
"""Whole numbers above it fit no tensor."""


def key(default: Any, meaning: str, **limits: Any) -> Any:
    """A key of a section: its default, its meaning (what `zssbir recipes --keys` says), limits as pydantic's `Field` has."""
    return Field(default, description=meaning, **limits)


class Section(BaseModel):
    """A section of a recipe: a misspelt key is an error, and so is a value of another type than its key's (`true` or
    "3" for a number, 1 for `true`) or a number that is not finite."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _tuples(cls, content: Any) -> Any:
        if not isinstance(content, dict):
            return content
        return {k: tuple(v) if isinstance(v, list) else v for k, v in content.items()}  # YAML has lists only

    @field_validator("*")
    @classmethod
    def _fits(cls, value: Any, info: ValidationInfo) -> Any:
        if isinstance(value, int) and value > LARGEST:
            raise ValueError(f"{info.field_name} is above {LARGEST}")
        return value
