"""Profiles of data sets, as files: what counts as relevant there, and how its passages read."""

import hashlib
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from causalneg.errors import UserError

_FOLDER = Path(__file__).parent

_Words = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=2000)]


class Profile(BaseModel):
    """What the prompts tell about a data set.

    Attributes:
        name: small letters, digits, `-`, `_` and `.`.
        version: raised by whoever changes the file.
        description: what the collection and its queries are.
        relevance: what makes a passage relevant there.
        style: how its passages read.
        avoid: what a negative of this collection must not be or do.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")
    version: int = Field(ge=1)
    description: _Words
    relevance: _Words
    style: _Words
    avoid: list[_Words] = Field(max_length=20)

    @property
    def key(self) -> str:
        """The name with a hash of the content: another content is another profile, whatever its version says."""
        return f"{self.name}-{hashlib.sha256(self.model_dump_json().encode()).hexdigest()[:12]}"


def profile_names() -> list[str]:
    """Return the names of the built-in profiles."""
    return sorted(path.stem for path in _FOLDER.glob("*.yaml"))


def load_profile(name_or_path: str) -> Profile:
    """Load a built-in profile by its name, or the user's own from a YAML file.

    Raises:
        UserError: there is no such profile or file, or the file is no profile.
    """
    names = profile_names()
    path = _FOLDER / f"{name_or_path}.yaml" if name_or_path in names else Path(name_or_path)
    known = f"the built-in profiles are {', '.join(names)}"
    loaded = _read(path, name_or_path, known)
    if not isinstance(loaded, dict):
        raise UserError(f"The profile {path} must hold fields as `name: value`; {known}.")
    try:
        return Profile.model_validate(loaded)
    except ValidationError as error:
        raise UserError(f"The profile {path}: {_problem(error)}; {known}.") from error


def _read(path: Path, name: str, known: str) -> Any:  # noqa: ANN401 - YAML holds anything
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"There is no profile {name!r}, neither built-in nor as a file; {known}.") from error
    except (OSError, ValueError) as error:  # ValueError: not UTF-8, a null byte in the path, or an impossible date
        raise UserError(f"The profile {path} cannot be read: {error}; {known}.") from error
    except (yaml.YAMLError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}," if mark else ""
        raise UserError(f"The profile {path}{line} is not valid YAML; {known}.") from error


def _problem(error: ValidationError) -> str:
    first = error.errors()[0]
    field = ".".join(str(part) for part in first["loc"])
    if first["type"] == "missing":
        return f"the field {field!r} is missing"
    if first["type"] == "extra_forbidden":
        return f"there is no field {field!r}; the fields are {', '.join(Profile.model_fields)}"
    return f"the field {field!r}: {first['msg'][0].lower()}{first['msg'][1:]}"
