"""The base of every model that crosses a boundary: frozen, and strict about unknown fields."""

from pydantic import BaseModel, ConfigDict


class Model(BaseModel):
    """A frozen value; two with equal fields are equal."""

    # What is wrong with an input may be a secret, and errors are logged: they do not quote it.
    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        use_enum_values=False,
        validate_default=False,
        defer_build=True,
        hide_input_in_errors=True,
    )
