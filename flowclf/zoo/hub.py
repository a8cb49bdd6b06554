"""Models to and from a Hugging Face Hub repository; needs the extra ``hub``.

A pushed repository has its ``index.json`` at its root, so ``--index`` with the base URL of its files works without the extra.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Unpack

from flowclf.errors import FlowclfError, UnreachableError, UsageError
from flowclf.files import write_json
from flowclf.remote.addresses import is_url
from flowclf.remote.downloads import download_file
from flowclf.remote.settings import Options
from flowclf.zoo.access import download
from flowclf.zoo.index import open_zoo
from flowclf.zoo.schema import INDEX, ZooEntry, ZooIndex


def push(
    repository: str,
    names: Sequence[str] | None = None,
    *,
    private: bool = False,
    token: str | None = None,
    **options: Unpack[Options],
) -> str:
    """Upload models of a zoo to a Hub repository; its index then holds these models.

    Args:
        repository: ``owner/name``; created if necessary.
        names: names of models; by default all of the zoo.
        private: whether a new repository is private.
        token: the user's token; by default that of the login.
        **options: location of the zoo; see :class:`flowclf.zoo.Options`.

    Returns:
        The URL of the commit.

    Raises:
        UsageError: if the extra is not installed, or there is no such model.
        ChecksumError: if a file is not the expected one; nothing is uploaded.
        UnreachableError: if a file cannot be read or the repository cannot be written.
    """
    hub = _hub()
    zoo = open_zoo(options)
    entries = zoo.index.models if names is None else [zoo.entry(name) for name in names]
    operations: list[Any] = []
    stored: list[ZooEntry] = []
    for entry in entries:
        folder = download(entry.name, **options)
        files = {name: file.model_copy(update={"path": f"{entry.name}/{name}"}) for name, file in entry.files.items()}
        operations += [hub.CommitOperationAdd(file.path, str(folder / name)) for name, file in files.items()]
        stored.append(entry.model_copy(update={"files": files}))
    index = ZooIndex(models=stored).model_dump_json(indent=2) + "\n"
    operations.append(hub.CommitOperationAdd(INDEX, index.encode()))
    api = hub.HfApi(token=token)
    try:
        api.create_repo(repository, private=private, exist_ok=True)
        commit = api.create_commit(repository, operations, commit_message=f"Models: {', '.join(entry.name for entry in stored)}")
    except Exception as error:  # whatever the library raises for a network, a login or a name
        raise UnreachableError(f"the repository {repository} cannot be written: {error}") from error
    return str(commit.commit_url)


def pull(
    repository: str, to: str | Path, names: Sequence[str] | None = None, *, revision: str | None = None, token: str | None = None
) -> Path:
    """Download models of a Hub repository to a local zoo; every file is checked against its hash, and the index is written last.

    Args:
        repository: ``owner/name``.
        to: a new or empty folder, which is also returned.
        names: names of models; by default all.
        revision: a branch, tag or commit.
        token: the user's token; by default that of the login.

    Raises:
        UsageError: if the extra is not installed, there is no such model, or ``to`` is not empty.
        ChecksumError: if a file is not the expected one.
        UnreachableError: if the repository or a file cannot be reached.
    """
    hub = _hub()
    to = Path(to)
    if to.exists() and (not to.is_dir() or any(to.iterdir())):
        raise UsageError(f"expected a new or empty folder, found {to}")

    def fetch(path: str) -> Path:
        try:
            return Path(hub.hf_hub_download(repository, path, revision=revision, token=token))
        except Exception as error:  # whatever the library raises for a network, a login or a name
            raise UnreachableError(f"{path} cannot be downloaded from the repository {repository}: {error}") from error

    # The library's cache holds links; each file is fetched by its path in the repository.
    zoo = open_zoo({"index": fetch(INDEX)})
    entries = zoo.index.models if names is None else [zoo.entry(name) for name in names]
    for entry in entries:
        for name, file in entry.files.items():
            if is_url(file.path):
                raise FlowclfError(f"{entry.name}/{name}: expected a file of the repository {repository}, found a URL")
            source = fetch(file.path)
            target = to.joinpath(*file.path.split("/"))
            download_file(target, file.content, [source], zoo.settings, f"{entry.name}/{name} from the repository {repository}")
    write_json(to / INDEX, ZooIndex(models=list(entries)).model_dump(mode="json"))
    return to


def _hub() -> Any:
    try:
        import huggingface_hub
    except ImportError as error:
        raise UsageError("the Hugging Face Hub needs the extra 'hub': pip install 'flowclf[hub]'") from error
    return huggingface_hub
