"""What the node can see while somebody looks: implements api.inspection.Inspection."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection
from contextlib import aclosing
from typing import Self

from api.errors import NotFound, Unreachable
from api.inspection import Exported, ExportFormat, Finding, LogLine, LogQuery, NodeUsage
from api.resolve import Defaults, resolve
from api.secrecy import marked_as, secret_values, without_secrets
from api.service import NodeStatus, Service
from controller.alerts.alerts import Alerts
from controller.certificate import ApiCertificate
from controller.doctor import Doctor
from controller.export import export
from controller.registry import Registry
from controller.settings import Settings
from reconcilers.base import Transient
from reconcilers.containers.engine.logs import Logs
from reconcilers.containers.engine.podman import Engine
from reconcilers.containers.engine.usage import Meter
from reconcilers.containers.watching.picture import Picture


class LocalInspection:
    """Looks at this node; changes nothing and keeps nothing."""

    def __init__(
        self, node: str, registry: Registry, defaults: Defaults, logs: Logs, meter: Meter, doctor: Doctor
    ) -> None:
        self._node = node
        self._defaults = defaults
        self._registry = registry
        self._logs = logs
        self._meter = meter
        self._doctor = doctor

    @classmethod
    def of(
        cls,
        settings: Settings,
        registry: Registry,
        engine: Engine,
        picture: Picture,
        status: Callable[[], Awaitable[NodeStatus]],
        certificate: ApiCertificate | None,
        alerts: Alerts | None,
    ) -> Self:
        """The one of a whole agent."""
        node = settings.node
        logs, meter = Logs(engine, picture, node), Meter(engine, picture, node)
        doctor = Doctor(settings, registry, engine, picture, status, certificate, alerts)
        return cls(node, registry, settings.defaults, logs, meter, doctor)

    async def logs(self, query: LogQuery) -> AsyncGenerator[tuple[LogLine, ...], None]:
        """Lines as they are there, oldest first; to follow ends with the service."""
        service = await self._registry.required(query.service)
        _refuse_unknown(service, query.component)
        over = asyncio.Event()
        secrets: set[str] = set()
        end = asyncio.create_task(self._accompany(query.service, secrets, over), name="logs-service")
        try:
            # A container may be of an earlier definition.
            for revision in await self._registry.revisions(query.service):
                secrets |= set(secret_values(marked_as(revision.spec, service.spec)))
            async with aclosing(self._logs.read(query, over)) as batches:
                async for batch in batches:
                    yield tuple(_without(secrets, line) for line in batch) if secrets else batch
        except Transient as failure:
            raise Unreachable(failure.message) from failure
        finally:
            end.cancel()

    async def _accompany(self, name: str, secrets: set[str], over: asyncio.Event) -> None:
        """Adds what becomes secret meanwhile; tells once the service is gone."""
        # Subscribed before it is looked at: its end is not missed.
        async with self._registry.subscribe() as changes:
            while (service := await self._registry.service(name)) is not None:
                secrets |= set(secret_values(service.spec))
                async for change in changes:
                    if change.service == name:
                        break
        over.set()

    async def usage(self, interval: float) -> AsyncGenerator[NodeUsage, None]:
        """What containers use, each `interval` seconds."""
        async with aclosing(self._meter.watch(interval)) as usages:
            async for usage in usages:
                yield usage

    async def diagnose(self) -> tuple[Finding, ...]:
        """All that was checked."""
        return await self._doctor.diagnose()

    async def export(self, name: str, form: ExportFormat) -> Exported:
        """Files that run a service without us."""
        service = await self._registry.required(name)
        others = [await self._registry.service(other) for other in service.spec.depends_on]
        needed = [
            component.container_name
            for other in others
            if other is not None
            for component in resolve(other.spec, self._defaults).components
        ]
        return export(service, resolve(service.spec, self._defaults), self._node, form, needed)


def _without(secrets: Collection[str], line: LogLine) -> LogLine:
    # Not UTF-8 for certain, and to be passed on as it is.
    text = line.text.decode("utf-8", "surrogateescape")
    return line.model_copy(update={"text": without_secrets(text, secrets).encode("utf-8", "surrogateescape")})


def _refuse_unknown(service: Service, component: str) -> None:
    names = dict.fromkeys(one.name for one in service.spec.components)
    if component and component not in names:
        raise NotFound(f'service "{service.name}" has no component "{component}", only {", ".join(names)}')
