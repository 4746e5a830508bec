"""Makes an agent's first token: through its socket where it runs, in its registry where it does not."""

from pathlib import Path

from pydantic import ValidationError

from api.access import AuditRecord, Role, TokenRequest
from api.client import Client
from api.complaints import complaints
from api.errors import Refused
from controller.auth.tokens import LocalTokens
from controller.listen import is_served
from controller.registry import Registry, utc_now
from controller.settings import Settings


async def bootstrap(settings: Settings, name: str, actor: str) -> str:
    """The secret of a new token of that name whose owner is an administrator.

    Raises Refused where one of that name holds, RegistryUnavailable, and
    Unreachable where the agent ends meanwhile.
    """
    try:
        request = TokenRequest(name=name, role=Role.ADMIN)
    except ValidationError as error:
        raise Refused(f"--name {complaints(error)[0].message}") from error
    socket = Path(settings.api.socket)
    try:
        served = is_served(socket)
    except OSError as error:
        raise Refused(
            f"api.socket: {socket} cannot be opened ({error.strerror}): run it as the agent's own user, or as root"
        ) from error
    if served:
        async with Client(f"unix://{socket}", actor=actor) as client:
            return (await client.access.create_token(request)).secret
    registry = await Registry.open(settings.registry_url, settings.node)
    try:
        made = await LocalTokens(registry, utc_now).create(request, actor=actor)
        record = AuditRecord(
            at=utc_now(),
            actor=actor,
            role=Role.ADMIN,
            address="local",
            method="mcp-agent token bootstrap",
            outcome="OK",
        )
        await registry.doors.record(record, durable=True)
    finally:
        await registry.close()
    return made.secret
