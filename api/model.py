"""The base of every model that crosses a boundary: frozen, and strict about unknown fields."""

from pydantic import BaseModel, ConfigDict


class Model(BaseModel):
    """A frozen value; two with equal fields are equal."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", use_enum_values=False, validate_default=False, defer_build=True
    )
