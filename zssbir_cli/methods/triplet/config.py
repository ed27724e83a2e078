"""Settings of the triplet baseline. Imports no torch."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class TripletConfig(BaseModel):
    """A plain supervised baseline: sketch, photo of its class, photos of other classes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Literal["triplet"] = "triplet"
    margin: float = Field(0.2, ge=0, description="Margin of the triplet loss on cosine distances.")
