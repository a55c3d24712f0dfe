"""What our tools for LlamaIndex agents share: typed arguments, and mistakes that come back as text to mend."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llama_index.core.bridge.pydantic import ValidationError
from llama_index.core.tools.types import AsyncBaseTool, ToolMetadata, ToolOutput

from rag_plugin.errors import InvalidInputError

if TYPE_CHECKING:
    from llama_index.core.bridge.pydantic import BaseModel

    from rag_plugin.errors import RagPluginError


class TypedTool(AsyncBaseTool):
    """A tool whose arguments are checked against a model with a field ``query``.

    Args:
        name: What the agent calls the tool by: letters, digits, ``_`` and ``-``.
        description: Tells the agent what it is for.
        arguments: The arguments; the JSON schema of this is what the agent's model is shown.

    Raises:
        InvalidInputError: A name that agents do not accept.
    """

    def __init__(self, name: str, description: str, arguments: type[BaseModel]) -> None:
        if not name or not all(c.isascii() and (c.isalnum() or c in "_-") for c in name):
            raise InvalidInputError(f"name={name!r}; agents accept letters, digits, '_' and '-' alone.")
        self._arguments = arguments
        self._metadata = ToolMetadata(name=name, description=description, fn_schema=arguments)

    @property
    def metadata(self) -> ToolMetadata:
        """Name, description and the schema of the arguments."""
        return self._metadata

    def given(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        """Arguments by name; some frameworks pass the one that matters by place."""
        return {"query": args[0], **kwargs} if args else dict(kwargs)

    def checked(self, given: dict[str, Any]) -> dict[str, Any]:
        """The arguments, completed by their defaults.

        Raises:
            InvalidInputError: Some are wrong, unknown or missing; the message says which are known.
        """
        try:
            arguments = self._arguments.model_validate(given).model_dump(by_alias=True)
        except ValidationError as error:
            problems = "; ".join(
                f"{'.'.join(str(part) for part in problem['loc']) or 'arguments'}: {problem['msg']}"
                for problem in error.errors(include_url=False, include_context=False)
            )
            known = (field.alias or name for name, field in self._arguments.model_fields.items())
            raise InvalidInputError(
                f"Wrong arguments for {self._metadata.name}: {problems}. Known arguments: {', '.join(known)}."
            ) from error
        if not arguments["query"].strip():
            raise InvalidInputError("The query is empty. Give it a word or more to search for.")
        return arguments

    def failed(self, given: dict[str, Any], error: RagPluginError) -> ToolOutput:
        """What the agent reads in place of an answer."""
        return ToolOutput(
            tool_name=self._metadata.get_name(),
            content=str(error),
            raw_input=given,
            raw_output=None,
            is_error=True,
            exception=error,
        )
