"""What every part of the recipe's schema has in common."""

from pydantic import BaseModel, ConfigDict
from pydantic_core import PydanticCustomError

from exporter.errors import LONGEST_MESSAGE, quoted


class Document(BaseModel):
    """A mapping with known keys and strict types; its attributes' docstrings become descriptions."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, use_attribute_docstrings=True)


def refuse(message: str) -> PydanticCustomError:
    """The error of a validator whose message already says everything; pydantic takes no text with lone surrogates."""
    return PydanticCustomError("refused", "{message}", {"message": quoted(message, LONGEST_MESSAGE)})
