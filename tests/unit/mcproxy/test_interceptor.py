"""What a caller is told when a handler raises, over a real channel."""

import contextlib
import tempfile
from collections.abc import AsyncIterator

import grpc
import pytest

from api.gen.mc_proxy.v1 import admin_pb2 as pb
from api.gen.mc_proxy.v1 import admin_pb2_grpc
from mcproxy import errors
from mcproxy.interceptor import TranslateErrors


@contextlib.asynccontextmanager
async def _raising(error: Exception) -> AsyncIterator["admin_pb2_grpc.ProxyAdminServiceAsyncStub"]:
    class Servicer(admin_pb2_grpc.ProxyAdminServiceServicer):
        async def GetStatus(self, request: pb.GetStatusRequest, context: object) -> pb.GetStatusResponse:  # noqa: N802
            raise error

    server = grpc.aio.server(interceptors=[TranslateErrors()])
    admin_pb2_grpc.add_ProxyAdminServiceServicer_to_server(Servicer(), server)
    with tempfile.TemporaryDirectory() as folder:
        server.add_insecure_port(f"unix:{folder}/s")
        await server.start()
        async with grpc.aio.insecure_channel(f"unix:{folder}/s") as channel:
            yield admin_pb2_grpc.ProxyAdminServiceStub(channel)
        await server.stop(None)


@pytest.mark.parametrize("kind", errors.Refused.__subclasses__())
async def test_each_reason_has_its_code_and_keeps_its_sentence(kind: type[errors.Refused]) -> None:
    async with _raising(kind("because")) as stub:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stub.GetStatus(pb.GetStatusRequest())
    assert (refused.value.code(), refused.value.details()) == (kind.code, "because")


async def test_a_fault_of_our_own_is_internal_and_not_shown() -> None:
    async with _raising(KeyError("secret")) as stub:
        with pytest.raises(grpc.aio.AioRpcError) as failed:
            await stub.GetStatus(pb.GetStatusRequest())
    assert failed.value.code() is grpc.StatusCode.INTERNAL
    assert "secret" not in (failed.value.details() or "")
    assert "KeyError" not in (failed.value.details() or "")
