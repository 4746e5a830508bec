"""Which images a definition has built, what they are called, and out of what; asks nobody but the disk.

All that is wrong is said at once, each with its line in the definition.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import click

from api.errors import InvalidSpec
from api.manifest import InvalidManifest, Manifest, Problem
from api.resolve import Defaults, derived_image_name, image_reference
from api.spec import ServiceSpec
from cli.config import Building

_LOCAL = "localhost"
"""What podman puts before the name of an image that has no registry."""
_NAME = re.compile(r"^.*/|[:@][^/]*$")
"""What an image's name stands between."""
_TAKES_VERSION = re.compile(r"^\s*ARG\s.*\bVERSION\b", re.IGNORECASE | re.MULTILINE)


@dataclass(frozen=True, slots=True)
class WantedImage:
    """An image of `[build.images]` under the name by which a component asks for it."""

    dockerfile: str
    """As the definition has it: relative to the folder of sources."""
    reference: str
    """With registry and tag."""

    @property
    def name(self) -> str:
        """Its key in `[build.images]`."""
        return self.repository.rpartition("/")[2]

    @property
    def repository(self) -> str:
        """The reference without its tag."""
        return self.reference.rpartition(":")[0]

    @property
    def tag(self) -> str:
        """The version."""
        return self.reference.rpartition(":")[2]

    @property
    def registry(self) -> str:
        """host[:port]; empty for an image that stays with the podman that built it."""
        first = self.reference.partition("/")[0]
        return "" if first == _LOCAL else first


@dataclass(frozen=True, slots=True)
class Recipe:
    """Out of what an image is built."""

    image: WantedImage
    dockerfile: Path
    context: Path
    takes_version: bool
    """Whether its Dockerfile has an ARG VERSION."""


class Plan:
    """What one definition has built on this machine. Each method raises InvalidManifest with all that is wrong."""

    def __init__(self, manifest: Manifest, building: Building, source: str) -> None:
        """`source` is what mcp.toml, which says `building`, is called."""
        self._manifest = manifest
        self._spec = manifest.spec
        self._images = manifest.spec.build.images if manifest.spec.build else {}
        self._building = building
        self._source = source
        self._problems: list[Problem] = []

    def wanted(self, component: str = "") -> tuple[WantedImage, ...]:
        """The images that `[build.images]` has built, or that of one component; none where it names none."""
        names = [one.name for one in self._spec.components]
        if component and component not in names:
            self._complain("components", f'there is no component "{component}", only {", ".join(names)}')
        if not component:
            self._complain_of_unused()
        references: dict[str, dict[str, str]] = {}
        for index, name in enumerate(names):
            image = _image_name(self._spec, index)
            if image in self._images and component in ("", name) and (reference := self._reference(index)):
                references.setdefault(image, {}).setdefault(reference, name)
        for image, users in references.items():
            if len(users) > 1:
                each = _listed(f"{reference} for {user}" for reference, user in users.items())
                one = f"mcp build {self._spec.name}/{next(iter(users.values()))}"
                self._complain(f"build.images.{image}", f"is wanted as {each}: build one at a time, as with {one}")
        self._refuse()
        return tuple(WantedImage(self._images[image], next(iter(users))) for image, users in references.items())

    def recipes(self, images: Iterable[WantedImage]) -> tuple[Recipe, ...]:
        """Out of what they are built. Raises click.UsageError where it is mcp.toml that is wrong."""
        context = self._context()
        found = []
        for image in images:
            dockerfile = context / image.dockerfile
            try:
                text = dockerfile.read_text(errors="replace")
            except OSError as error:
                self._complain(f"build.images.{image.name}", f"{dockerfile} cannot be read: {error.strerror}")
            else:
                found.append(Recipe(image, dockerfile, context, bool(_TAKES_VERSION.search(text))))
        self._refuse()
        return tuple(found)

    def _complain_of_unused(self) -> None:
        used = list(dict.fromkeys(_image_name(self._spec, index) for index in range(len(self._spec.components))))
        for name in self._images:
            if name not in used:
                self._complain(f"build.images.{name}", f"no component uses an image of that name, only {_listed(used)}")

    def _reference(self, index: int) -> str:
        """What that component's image is called in full; empty where that is complained about."""
        field = f"components[{index}].image"
        if self._spec.components[index].image is None and not self._building.registry:
            missing = f"{self._source} does not say where images go: set build.registry, as the node's agent has it"
            return self._complain(field, f"is left out, and {missing}")
        try:
            reference = image_reference(self._spec, index, Defaults(registry=self._building.registry))
        except InvalidSpec as error:
            return self._complain(error.field, error.message)
        if "@" in reference:
            problem = "is pinned to a digest, which no build can promise: name a tag instead"
            return self._complain(field, f'"{reference}" {problem}')
        first, slash, _ = reference.partition("/")
        if not slash or not (first == _LOCAL or "." in first or ":" in first):
            return self._complain(field, f'"{reference}" names no registry to push to: write registry/{reference}')
        return reference

    def _context(self) -> Path:
        if self._building.workspace is None:
            raise click.UsageError(
                f'{self._source} does not say where the sources are: set build.workspace, as in workspace = "~/src"'
            )
        workspace = Path(self._building.workspace)
        if not workspace.is_dir():
            raise click.UsageError(f"{self._source}: build.workspace: there is no folder {workspace}")
        field, below = ("path", self._spec.path) if self._spec.path else ("name", self._spec.name)
        context = workspace / below
        if Path(below).is_absolute() or ".." in Path(below).parts:
            self._complain(field, f'"{below}" does not lie below the workspace {workspace}')
        elif not context.is_dir():
            advice = ": fetch the sources, or say with `path` where below the workspace they are"
            self._complain(field, f"there is no folder {context}{'' if self._spec.path else advice}")
        self._refuse()
        return context

    def _complain(self, field: str, message: str) -> str:
        """Notes what is wrong; nothing is what there is instead."""
        self._problems.append(Problem(self._manifest.source, self._manifest.locate(field), field, message))
        return ""

    def _refuse(self) -> None:
        if self._problems:
            raise InvalidManifest(tuple(sorted(self._problems, key=lambda problem: problem.line)))


def _image_name(spec: ServiceSpec, index: int) -> str:
    """What that component's image is called without registry, tag and digest."""
    image = spec.components[index].image
    return derived_image_name(spec, index) if image is None else _NAME.sub("", image)


def _listed(words: Iterable[str]) -> str:
    *most, last = words
    return f"{', '.join(most)} and {last}" if most else last
