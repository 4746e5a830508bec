"""What `mcp build` and `mcp deploy --build` do, once their options are read."""

import asyncio
import time
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field

from api.errors import Refused
from api.manifest import InvalidManifest, Manifest, Problem
from cli.build_plan import Plan, Recipe, WantedImage
from cli.builder import BuildFailed, Podman
from cli.config import Nodes
from cli.definitions import required
from cli.options import Settings, target
from cli.output import Output
from cli.reports.changes import BuildReport, BuiltImage, ImageOutcome
from cli.sources import manifests


@dataclass(frozen=True, slots=True)
class How:
    """What the options of `mcp build` say."""

    dry_run: bool = False
    rebuild: bool = False
    """Build what exists already, too."""
    push: bool = True


@dataclass(slots=True)
class Build:
    """The images of one definition on their way."""

    output: Output
    podman: Podman
    how: How
    done: list[BuiltImage] = field(default_factory=list)

    async def missing(self, images: Sequence[WantedImage]) -> list[WantedImage]:
        """Those that are to be built; the others are told. Raises Unknown where that cannot be found out."""
        if self.how.rebuild or not self.how.push:
            return list(images)
        found = await asyncio.gather(*(self.podman.has(image) for image in images))
        for image, exists in zip(images, found, strict=True):
            if exists:
                self._tell(image, ImageOutcome.PRESENT, "exists already")
        return [image for image, exists in zip(images, found, strict=True) if not exists]

    def foretell(self, them: Iterable[Recipe]) -> None:
        """Says what would be built."""
        for recipe in them:
            pushed = " and pushed" if self._pushes(recipe.image) else ""
            self._tell(recipe.image, ImageOutcome.MISSING, f"would be built from {recipe.dockerfile}{pushed}")

    async def run(self, them: Sequence[Recipe]) -> None:
        """Builds and pushes them, one after the other; the first failure ends it. Raises BuildFailed."""
        for recipe in them:
            try:
                await self._make(recipe)
            except (BuildFailed, Refused) as error:
                made = {one.image for one in self.done if one.outcome is not ImageOutcome.PRESENT}
                left = [one.image.reference for one in them if one.image.reference not in made]
                raise type(error)("\n".join([error.message, *_rest(left, made)])) from error
            except asyncio.CancelledError:
                self.output.error(f"interrupted: {recipe.image.reference} is not {self._goal(recipe.image)}")
                raise

    async def _make(self, recipe: Recipe) -> None:
        image, started = recipe.image, time.monotonic()
        self.output.note(f"{image.reference}: building {recipe.dockerfile}")
        try:
            await self.podman.build(recipe)
        except BuildFailed as error:
            raise BuildFailed(f"{image.reference} is not built: {error.message}") from error
        if not self._pushes(image):
            self._tell(image, ImageOutcome.BUILT, "built", seconds=time.monotonic() - started)
            return
        # A build takes its time, in which somebody else may have pushed the same.
        if not self.how.rebuild and await self.podman.has(image):
            raise Refused(f"{image.reference} is not pushed: it came to exist while it was built here")
        try:
            digest = await self.podman.push(image)
        except BuildFailed as error:
            raise BuildFailed(f"{image.reference} is built, but not pushed: {error.message}") from error
        self._tell(image, ImageOutcome.PUSHED, "built and pushed", digest, time.monotonic() - started)

    def _pushes(self, image: WantedImage) -> bool:
        return self.how.push and bool(image.registry)

    def _goal(self, image: WantedImage) -> str:
        return "pushed" if self._pushes(image) else "built"

    def _tell(
        self, image: WantedImage, outcome: ImageOutcome, words: str, digest: str = "", seconds: float | None = None
    ) -> None:
        took = "" if seconds is None else f" in {seconds:.2f}s"
        self.output.line(f"{image.reference} {words}{took}", style="" if seconds is None else "green")
        rounded = None if seconds is None else round(seconds, 3)
        self.done.append(BuiltImage(image=image.reference, outcome=outcome, digest=digest or None, seconds=rounded))


def _rest(left: Sequence[str], made: Collection[str]) -> list[str]:
    others = [f"not built: {', '.join(left[1:])}"] if left[1:] else []
    return [*others, *([f"built before: {', '.join(made)}"] if made else [])]


async def build(settings: Settings, service: str, how: How) -> int:
    """Builds the images of SERVICE[/COMPONENT]; see `mcp build --help`."""
    output = Output(settings)
    name, component = target(service)
    (manifest,) = manifests([str(required(Nodes(settings).services, name))])
    done = await built(settings, output, manifest, component, how)
    if done is None:
        what = f'component "{component}"' if component else "this service"
        message = f'names no image of {what}: write [build.images] with its image\'s name = "Dockerfile"'
        raise InvalidManifest((Problem(manifest.source, manifest.locate("build.images"), "build.images", message),))
    output.document(BuildReport(dry_run=how.dry_run, images=tuple(done)))
    return 0


async def built(
    settings: Settings, output: Output, manifest: Manifest, component: str, how: How
) -> list[BuiltImage] | None:
    """Builds those images of a definition that do not exist; what became of each, or None where it builds none."""
    nodes = Nodes(settings)
    building, source = nodes.building, nodes.source
    plan = Plan(manifest, building, source)
    images = plan.wanted(component)
    if not images:
        return None
    work = Build(output, Podman(building, source, quiet=settings.quiet), how)
    missing = await work.missing(images)
    them = plan.recipes(missing) if missing else ()
    if how.dry_run:
        work.foretell(them)
    else:
        await work.run(them)
    return work.done
