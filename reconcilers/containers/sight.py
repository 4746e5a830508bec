"""What the reconciler sees: one moment of the node, put together from those who watch it."""

from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace

from api.resolve import Defaults, ResolvedService
from api.secrecy import secret_values, without_secrets
from api.service import ContainerState, Service
from api.spec import PullPolicy
from reconcilers.base import Clock, Terminal, Transient
from reconcilers.containers.engine.podman import Engine
from reconcilers.containers.engine.request import is_outdated
from reconcilers.containers.engine.transport import EngineError
from reconcilers.containers.images.presence import Images
from reconcilers.containers.model import Observation
from reconcilers.containers.order import unready
from reconcilers.containers.watching.drain import Drains, is_busy
from reconcilers.containers.watching.picture import Picture
from reconcilers.containers.watching.probe import NOTHING, Expectation, Prober
from reconcilers.containers.watching.record import ContainerRegistry
from reconcilers.containers.world import World
from reconcilers.definition import resolved


@dataclass(slots=True)
class Sight:
    """All who watch the node, and what they say together."""

    node: str
    registry: ContainerRegistry
    engine: Engine
    picture: Picture
    prober: Prober
    drains: Drains
    images: Images
    defaults: Defaults
    clock: Clock
    _words: dict[str, str] = field(default_factory=dict)
    """The last words of containers that were asked for them, by id."""
    _secrets: dict[str, set[str]] = field(default_factory=dict)
    """By service, what is or was secret: a container that is about to be replaced speaks of what it was given."""

    def world(self, service: Service, observation: Observation) -> World:
        """What is known beside the containers of `observation`, for a look at `service`."""
        secrets = self._secrets_of(service)
        return World(
            self.node,
            observation,
            self.prober.ready,
            self.clock(),
            last_words=_without(secrets, self._words),
            newest=self.images.newest(),
            unwell=_without(secrets, self.prober.unwell),
            trouble=_without(secrets, self.prober.trouble),
            draining=self.drains.since,
            busy=self.drains.busy,
        )

    def attend(self, service: Service) -> World:
        """What is known now beside a service that is stored: from here on it is watched as its definition says.

        Raises Transient while the picture is unknown.
        """
        self.prober.recall(service.components)
        self.remember(service)
        if not service.deleting:
            with suppress(Terminal):
                definition = resolved(service, self.defaults)
                observation = self.picture.current()
                self.prober.expect(service.name, _expectation(service, definition, self.node, observation))
                self.images.want_newer(service.name, newer(definition))
        return self.world(service, self.picture.current())

    def attends(self, service: Service, definition: ResolvedService, observation: Observation) -> bool:
        """Whether the service is watched as this definition says."""
        expected = _expectation(service, definition, self.node, observation)
        same = self.prober.expected(service.name) == expected
        return same and self.images.wants_newer(service.name) == frozenset(newer(definition))

    def forget(self, service: str) -> None:
        """Watches a service no more."""
        self.prober.expect(service, NOTHING)
        self.images.want_newer(service, ())
        self._secrets.pop(service, None)

    async def unready(self, definition: ResolvedService, world: World) -> Mapping[str, str]:
        """The services that are to be ready first and are not, and what is the matter with them."""
        problems = {}
        for name in definition.depends_on:
            service = await self.registry.service(name)
            if service is None:
                problems[name] = "does not exist"
            elif not service.spec.active:
                problems[name] = "is stopped"
            elif waiting := self._unready_containers(service, world):
                problems[name] = f"is not ready: {', '.join(waiting)}"
        return problems

    def _unready_containers(self, service: Service, world: World) -> list[str]:
        try:
            definition = resolved(service, self.defaults)
        except Terminal as problem:
            return [problem.message]
        # What the registry remembers of them may be from before a reboot.
        needed = (component for component in definition.components if component.active)
        return [component.container_name for component in unready(definition, needed, world)]

    async def with_connections(self, service: str, world: World) -> World:
        """The same, and who is connected to the service's containers, where one of them may have to end."""
        running = [one for one in world.observation.owned(self.node, service) if one.running and one.routes]
        unwatched = [one for one in running if one.id not in world.draining]
        busy = [one.id for one in unwatched if await is_busy(one)]
        return replace(world, busy=world.busy.union(busy))

    async def with_last_words(self, service: Service, world: World) -> World:
        """The same, and what the service's containers said that ended or are not ready."""
        for container in world.observation.owned(self.node, service.name):
            silent = container.running and container.id not in world.ready
            if container.state is ContainerState.EXITED or silent:
                # They are a help to a person, and no more.
                with suppress(EngineError, Transient):
                    self._words[container.id] = await self.engine.last_words(container.id)
        return replace(world, last_words=_without(self._secrets_of(service), self._words))

    def remember(self, service: Service) -> None:
        """Keeps in mind what is secret in a service that is stored: its containers may be given it."""
        if values := secret_values(service.spec):
            self._secrets.setdefault(service.name, set()).update(values)

    def _secrets_of(self, service: Service) -> Collection[str]:
        values = secret_values(service.spec)
        return self._secrets.get(service.name, set()).union(values)

    def follow(self, _: Observation | None, observation: Observation | None) -> None:
        """Forgets the words of containers that are gone; an unknown picture changes nothing."""
        if observation is not None:
            self._words = {key: words for key, words in self._words.items() if key in observation.containers}


def _without(secrets: Collection[str], words: Mapping[str, str]) -> Mapping[str, str]:
    """What containers said, by id, where a word of theirs is about to be written down."""
    return {key: without_secrets(text, secrets) for key, text in words.items()} if secrets else words


def _expectation(service: Service, definition: ResolvedService, node: str, observation: Observation) -> Expectation:
    """How the service's containers are asked whether they are well.

    What a definition expects of its containers it cannot expect of those from
    before: a wrong check must not take down what goes on serving.
    """
    components = {component.name: component for component in definition.components}
    spared = frozenset(
        one.id
        for one in observation.owned(node, service.name)
        if one.component in components and is_outdated(service, definition, components[one.component], one, node)
    )
    return Expectation({name: component.health for name, component in components.items()}, spared)


def newer(definition: ResolvedService) -> tuple[str, ...]:
    """The images of which it is asked what their tags stand for."""
    components = (component for component in definition.components if component.active)
    return tuple(component.image for component in components if component.pull is PullPolicy.NEWER)
