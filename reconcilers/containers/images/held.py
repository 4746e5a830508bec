"""Remembers what references stand for on the node, so that a container costs no question about its image."""

from reconcilers.containers.engine.podman import Engine
from reconcilers.containers.images.references import LocalImage
from reconcilers.containers.watching.picture import Picture


class HeldImages:
    """The images that the engine holds, by reference; forgotten as soon as anything happens to any image."""

    def __init__(self, engine: Engine, picture: Picture) -> None:
        self._engine = engine
        self._known: dict[str, LocalImage] = {}
        picture.listen_to_images(self.forget)

    async def image(self, reference: str) -> LocalImage | None:
        """The image that the reference stands for here, or None. Raises EngineError, Transient."""
        # What happens during the question takes the answer with it.
        known = self._known
        if reference not in known and (found := await self._engine.image(reference)) is not None:
            known[reference] = found
        return known.get(reference)

    def forget(self) -> None:
        """Something happened to an image."""
        self._known = {}
