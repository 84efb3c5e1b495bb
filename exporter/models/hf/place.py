"""Where a Hugging Face checkpoint lies: a folder of this machine, or a repository of the hub.

In: what stands after `hf:`; out: a `Place`, which the other files of this source ask for
files by name, so that they need not know which of the two it is.
"""

from dataclasses import dataclass, replace
from pathlib import Path

from exporter.errors import ModelUnavailableError
from exporter.models.fetch import Via
from exporter.models.request import ResolvedRequest


@dataclass(frozen=True, kw_only=True)
class Place:
    """A folder, or a repository and its revision.

    Attributes:
        spelling: The model, as messages name it.
        where: The folder's path, or OWNER/NAME.
        revision: Of the repository; None is its main branch.
        commit: That the revision was found to be.
    """

    spelling: str
    where: str
    revision: str | None = None
    commit: str | None = None

    @property
    def folder(self) -> Path | None:
        """The folder; None of a repository."""
        path = Path(self.where)
        return path if path.is_dir() else None

    @property
    def via(self) -> Via:
        """How it is reached."""
        return "hub" if self.folder is None else "disk"

    @property
    def pinned(self) -> dict[str, str]:
        """The arguments by which transformers takes this revision and no other."""
        revision = self.commit or self.revision
        return {"revision": revision} if revision else {}

    @property
    def name(self) -> str:
        """What the folder or the repository is called."""
        return Path(self.where).resolve().name

    def file(self, name: str) -> Path | None:
        """One file of it, fetched if need be; None if there is none of that name.

        Raises:
            OSError: The repository cannot be reached, or does not exist.
        """
        if (folder := self.folder) is not None:
            return folder / name if (folder / name).is_file() else None
        from transformers.utils.hub import cached_file

        found = cached_file(self.where, name, **self.pinned, _raise_exceptions_for_missing_entries=False)
        return Path(found) if found else None

    def pinned_to_commit(self) -> "Place":
        """The same place, of whose repository every further file is of one commit; a folder as it is.

        Raises:
            OSError: The repository cannot be reached.
        """
        config = None if self.folder else self.file("config.json")
        if config is None or config.parent.parent.name != "snapshots":
            return self
        return replace(self, commit=config.parent.name)

    def check_reached(self) -> None:
        """Ask for what every checkpoint has, where a missing file and a missing network would look the same.

        Raises:
            OSError: The repository cannot be reached, does not exist, or has no config.json.
        """
        if self.folder is None:
            from transformers.utils.hub import cached_file

            cached_file(self.where, "config.json", **self.pinned)


def find_place(asked: ResolvedRequest) -> Place:
    """Read what stands after `hf:`.

    Raises:
        ModelUnavailableError: It can only be a folder, and there is none.
    """
    folder = Path(asked.id).expanduser()
    if folder.is_dir():
        return Place(spelling=asked.spelling, where=str(folder))
    if folder.is_file():
        raise ModelUnavailableError(
            f'"{folder}" is a file: expected hf:FOLDER, with its config.json, or hf:OWNER/NAME; '
            "weights alone are given by --weights FILE"
        )
    if asked.id.startswith((".", "/", "~")) or asked.id.count("/") > 1:
        raise ModelUnavailableError(f'there is no folder "{folder}": expected hf:FOLDER or hf:OWNER/NAME')
    repository, _, revision = asked.id.partition("@")
    return Place(spelling=asked.spelling, where=repository, revision=revision or None)
