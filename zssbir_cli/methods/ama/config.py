"""Settings of AMA. Imports no torch."""

from typing import Literal

from pydantic import BaseModel, ConfigDict


class AmaConfig(BaseModel):
    """AMA (asymmetric mutual alignment)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Literal["ama"] = "ama"
