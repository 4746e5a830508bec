"""Stands before every method: who calls, may they, are they not calling too much; and what is written down of it.

To gRPC every method is one of streams, as only of those it takes no request
before it is read: requests are taken, and parsed, once their caller may make
them. On the wire there is no difference. The gate raises what the error
interceptor, which stands before it, translates.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any

import grpc
import grpc.aio
from google.protobuf.message import Message

from api.access import AuditRecord, Identity, set_caller
from api.errors import Forbidden, InvalidSpec, McpError, TooMany, Unauthenticated
from api.gen.mcp.v1 import access_pb2
from api.server import Context, Handler, answers, behavior_of
from controller.auth.audit import Audit
from controller.auth.doorman import SOCKET, Doorman, address_of
from controller.auth.methods import Rule
from reconcilers.base import Clock

_LONGEST_DETAIL = 200
_ACCESS = f"{access_pb2.DESCRIPTOR.services_by_name['AccessService'].full_name}/"


@dataclass(slots=True)
class Call:
    """What is known of one call while it goes on."""

    method: str
    address: str
    identity: Identity | None = None
    admitted: bool = False
    dry_run: bool = False
    service: str = ""
    generation: int = 0
    detail: str = ""

    def asked(self, request: Message) -> None:
        """Learns from a request what it is about. Of a stream, the first that says so counts."""
        self.dry_run = self.dry_run or bool(getattr(request, "dry_run", False))
        name = getattr(request, "service", "") or getattr(request, "name", "")
        for part in ("spec", "token"):
            name = name or getattr(getattr(request, part, None), "name", "")
        if not isinstance(name, str):
            return
        if self.method.startswith(_ACCESS):
            self.detail = self.detail or (f"token {name}" if name else "")
        else:
            self.service = self.service or name

    def answered(self, answer: Message) -> None:
        """Learns from the answer which generation the service has since."""
        self.generation = getattr(getattr(answer, "service", None), "generation", 0)


class Gate(grpc.aio.ServerInterceptor):  # type: ignore[type-arg]  # generic in the stubs only
    """Lets through who may pass, by one table of rules."""

    def __init__(
        self, rules: Mapping[str, Rule], doorman: Doorman, audit: Audit, clock: Clock, *, calls_per_caller: int
    ) -> None:
        self._rules = rules
        self._doorman = doorman
        self._audit = audit
        self._clock = clock
        self._calls_per_caller = calls_per_caller
        self._calls: Counter[tuple[str, str]] = Counter()

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable["Handler | None"]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler:
        """Stands before the handler of any kind of call, and of none."""
        method = handler_call_details.method
        handler = await continuation(handler_call_details)
        rule = self._rules.get(method)
        if handler is None or rule is None:
            return grpc.stream_stream_rpc_method_handler(self._nowhere(method))
        return grpc.stream_stream_rpc_method_handler(
            self._stream(method, rule, handler) if handler.response_streaming else self._unary(method, rule, handler),
            response_serializer=handler.response_serializer,
        )

    def _nowhere(self, method: str) -> Callable[[Any, Context], Awaitable[None]]:
        async def refused(requests: Any, context: Context) -> None:  # noqa: ARG001  # gRPC's
            await self._doorman.identify(context)
            await context.abort(grpc.StatusCode.UNIMPLEMENTED, f"there is no method {method}")

        return refused

    def _unary(self, method: str, rule: Rule, handler: Handler) -> Callable[[Any, Context], AsyncIterator[Message]]:
        async def answer_to(requests: AsyncIterator[bytes], context: Context) -> Message:
            async with self._passing(method, rule, context) as call, self._while_let_in(handler, call, context):
                answer: Message = await behavior_of(handler)(await _read(handler, requests, call), context)
                call.answered(answer)
                return answer

        async def guarded(requests: AsyncIterator[bytes], context: Context) -> AsyncIterator[Message]:
            # Written down by now: who gives up while the answer travels changes nothing of what was done.
            yield await answer_to(requests, context)

        return guarded

    def _stream(self, method: str, rule: Rule, handler: Handler) -> Callable[[Any, Context], AsyncIterator[Message]]:
        async def guarded(requests: AsyncIterator[bytes], context: Context) -> AsyncIterator[Message]:
            async with self._passing(method, rule, context) as call, self._while_let_in(handler, call, context):
                async for answer in answers(behavior_of(handler), await _read(handler, requests, call), context):
                    yield answer

        return guarded

    @asynccontextmanager
    async def _passing(self, method: str, rule: Rule, context: Context) -> AsyncIterator[Call]:
        call = Call(method.removeprefix("/"), address_of(context))
        try:
            identity = call.identity = await self._doorman.identify(context)
            with self._admitted(identity, rule):
                call.admitted = True
                set_caller(identity)
                yield call
        except BaseException as error:
            await self._write_down(call, rule, error)
            raise
        else:
            await self._write_down(call, rule, None)

    @contextmanager
    def _admitted(self, identity: Identity, rule: Rule) -> Iterator[None]:
        """Raises Forbidden, TooMany."""
        if not identity.role.covers(rule.role):
            raise Forbidden(f"{identity.name} is {identity.role}, and this needs {rule.role}")
        key = (identity.how, identity.name)
        if self._calls[key] >= self._calls_per_caller:
            raise TooMany(f"{identity.name} has {self._calls_per_caller} calls open: end some first")
        self._calls[key] += 1
        try:
            yield
        finally:
            self._calls[key] -= 1
            if not self._calls[key]:
                del self._calls[key]

    @asynccontextmanager
    async def _while_let_in(self, handler: Handler, call: Call, context: Context) -> AsyncIterator[None]:
        """Ends a stream of requests or answers once its caller would not be let in any more."""
        identity = call.identity
        streams = handler.request_streaming or handler.response_streaming
        if identity is None or call.address == SOCKET or not streams:
            yield
            return
        watch = asyncio.create_task(self._doorman.until_refused(identity, context), name="until-refused")
        patience = asyncio.timeout(None)

        def end(watch: asyncio.Task[McpError]) -> None:
            if not watch.cancelled():
                patience.reschedule(asyncio.get_running_loop().time())

        try:
            async with patience:
                watch.add_done_callback(end)
                try:
                    yield
                finally:
                    watch.remove_done_callback(end)
                    watch.cancel()
        except TimeoutError:
            if not patience.expired():
                raise
            raise watch.result() from None

    async def _write_down(self, call: Call, rule: Rule, error: BaseException | None) -> None:
        refused = not call.admitted or isinstance(error, Unauthenticated | Forbidden)
        if isinstance(error, TooMany) and call.identity is None:
            # Those who were refused before it have rows; this one is what keeps there from being a million.
            return
        if not refused and (not rule.writes or (call.dry_run and error is None)):
            return
        identity = call.identity
        await self._audit.write(
            AuditRecord(
                at=self._clock(),
                actor=identity.name if identity else "",
                role=identity.role if identity else "",
                address=call.address,
                how=identity.how if identity else "",
                method=call.method,
                service=call.service,
                generation=call.generation,
                outcome=_outcome(error),
                # What a handler says may quote what it was given.
                detail=_detail(error) if refused else call.detail,
            )
        )


async def _read(handler: Handler, requests: AsyncIterator[bytes], call: Call) -> Any:
    """The request, parsed and looked at; of a stream, as it comes. Raises InvalidSpec where there is none."""

    async def each() -> AsyncIterator[Any]:
        async for raw in requests:
            message: Any = handler.request_deserializer(raw) if handler.request_deserializer else raw
            call.asked(message)
            yield message

    if handler.request_streaming:
        return each()
    async for message in each():
        return message
    raise InvalidSpec("", "the call carries no request")


def _outcome(error: BaseException | None) -> str:
    match error:
        case None:
            return "OK"
        case McpError():
            return error.code.name
        case asyncio.CancelledError() | GeneratorExit():
            return "CANCELLED"
        case _:
            return "INTERNAL"


def _detail(error: BaseException | None) -> str:
    return error.message[:_LONGEST_DETAIL] if isinstance(error, McpError) else ""
