"""What images are called, and what the engine says of those that it holds. Pure."""

from dataclasses import dataclass

_LOCAL = "localhost/"
"""Begins the name of an image that was made here: there is no such registry."""


def registry_of(reference: str) -> str:
    """The host and port that the reference begins with; empty for a short name, which the engine completes."""
    first, slash, _ = reference.partition("/")
    return first if slash and (first == "localhost" or "." in first or ":" in first) else ""


def repository_of(reference: str) -> str:
    """The reference without its tag and digest."""
    name = reference.partition("@")[0]
    before, colon, after = name.rpartition(":")
    return before if colon and "/" not in after else name


def is_called(name: str, reference: str) -> bool:
    """Whether `name`, which the engine has written out in full, is what a definition calls `reference`."""
    if "@" not in reference and repository_of(reference) == reference:
        reference += ":latest"
    return name == reference or (not registry_of(reference) and name.endswith(f"/{reference}"))


@dataclass(frozen=True, slots=True)
class LocalImage:
    """An image that the engine holds."""

    id: str
    names: tuple[str, ...] = ()
    """Its tags, written out: `docker.io/library/busybox:1`."""
    digests: tuple[str, ...] = ()
    """By which repositories know it: `docker.io/library/busybox@sha256:...`."""
    manifest: str = ""
    """The digest of its own manifest, which may be one of a list."""

    def digest_in(self, reference: str) -> str:
        """What the reference stood for in its registry: `sha256:...`; empty for an image that was made here."""
        wanted = repository_of(reference)
        found = [
            digest
            for repository, _, digest in (entry.partition("@") for entry in self.digests)
            if not repository.startswith(_LOCAL) and is_called(f"{repository}:x", f"{wanted}:x")
        ]
        # A tag that stands for a list of manifests is known by the list's digest, too.
        return next((digest for digest in found if digest != self.manifest), next(iter(found), ""))
