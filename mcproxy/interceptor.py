"""The one place where errors become gRPC codes."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import structlog
from typing_extensions import override

from mcproxy.errors import Internal, Refused

log = structlog.get_logger()


class TranslateErrors(grpc.aio.ServerInterceptor):  # type: ignore[type-arg]  # generic in the stubs only
    """Answers what a handler raises with a code and a sentence; a fault of our own is logged and never shown."""

    @override
    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any]]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any]:
        handler = await continuation(handler_call_details)
        inner = handler.unary_unary if handler else None
        if inner is None:
            return handler

        async def translated(request: Any, context: Any) -> Any:
            method = handler_call_details.method
            try:
                return await inner(request, context)
            except Refused as error:
                log.info("refused", method=method, code=error.code.name, reason=str(error))
                await context.abort(error.code, str(error))
            except (grpc.aio.AbortError, asyncio.CancelledError):
                raise
            except Exception:
                log.exception("handler failed", method=method)
                await context.abort(Internal.code, "mcproxyd failed; its log tells more")

        return grpc.unary_unary_rpc_method_handler(
            translated, handler.request_deserializer, handler.response_serializer
        )
