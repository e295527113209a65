"""Files of ours as models: every record of a run, a study or a verdict saves and loads itself.

metrics = Metrics.load(folder.metrics)
metrics.save(folder.metrics)
"""

from pathlib import Path
from typing import Any, Self, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from lamella.errors import ModelError
from lamella.files import parse_json_file, write_record

_C = TypeVar("_C", bound=BaseModel)


def load_content(path: Path, kind: type[_C], *, made_by: str) -> _C | None:
    """Return what a file of ours holds; None where there is no file.

    Args:
        path: The file.
        kind: What it should hold.
        made_by: The command that writes it, for the error.

    Raises:
        ModelError: Naming the file and the first value that cannot be.
    """
    if not path.is_file():
        return None
    remedy = f"Run `{made_by}` again: it makes what is missing."
    try:
        return kind.model_validate(parse_json_file(path))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise ModelError(f"'{path}' is damaged ({where}: {' '.join(first['msg'].split())[:120]}). {remedy}") from error
    except (OSError, ValueError) as error:
        raise ModelError(f"'{path}' is damaged ({' '.join(str(error).split())[:120]}). {remedy}") from error


class Record(BaseModel):
    """A file of ours as a model; keys of other versions that it does not know are kept as they are."""

    model_config = ConfigDict(frozen=True, extra="allow", populate_by_name=True)

    @classmethod
    def load(cls, path: Path, *, made_by: str = "lamella run") -> Self:
        """Load what `save` wrote, this version's or an earlier one's.

        Args:
            path: The file.
            made_by: The command that makes it, for the message.

        Raises:
            ModelError: If it is absent, cannot be read, was changed after it was written, or lacks something.
        """
        content = load_content(path, cls, made_by=made_by)
        if content is None:
            raise ModelError(f"there is no '{path}'. Run `{made_by}` again: it makes what is missing.")
        return content

    def save(self, path: Path) -> None:
        """Write it, whole or not at all."""
        write_record(path, self.as_json())

    def as_json(self) -> dict[str, Any]:
        """Return it as its file holds it: what was never set is not there."""
        return self.model_dump(mode="json", by_alias=True, exclude_unset=True)


class Result(Record):
    """A record that is returned in Python: its values are attributes, and `result["key"]` is what its file has."""

    def __getitem__(self, key: str) -> Any:
        """Return what the file has under a key, as plain JSON."""
        return self.as_json()[key]

    def __contains__(self, key: object) -> bool:
        """Say whether the file has a key."""
        return key in self.as_json()
