"""Settings of PuXIM. Imports no torch."""

from typing import Literal

from pydantic import BaseModel, ConfigDict


class PuximConfig(BaseModel):
    """PuXIM (purified masked matching)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Literal["puxim"] = "puxim"
