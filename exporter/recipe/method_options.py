"""The options of a method, checked against the method's own dataclass of them."""

from pydantic import ValidationError

from exporter.errors import UsageError, nearest
from exporter.recipe.error_messages import describe_value
from exporter.recipe.keys import field_keys
from exporter.recipe.schema import options_document
from exporter.recipe.tree import Recipe


def wrong_option(recipe: Recipe) -> str | None:
    """What is wrong with the options of a recipe's method, in one line; None where nothing is."""
    if not recipe.method_options:
        return None
    from exporter.reduction import method

    options = method(recipe.method).options
    known = [each.name for each in field_keys(options)]
    for name in recipe.method_options:
        if name not in known:
            listed, hint = ", ".join(known) or "none", nearest(name, known)
            return f"method_options.{name}: unknown option of {recipe.method}; known: {listed}.{hint}"
    document = options_document(options)
    try:
        document.model_validate(dict(recipe.method_options))
    except ValidationError as error:
        found = error.errors()[0]
        name = str(found["loc"][0])
        fragment = document.model_json_schema()["properties"][name]
        return describe_value(f"method_options.{name}", fragment, found["input"])
    try:
        method(recipe.method).with_options(recipe.method_options)
    except UsageError as error:
        return str(error)
    return None
