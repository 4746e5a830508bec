"""The part of the typed client that is about access."""

from collections.abc import Awaitable, Callable
from typing import Any

from api.access import AuditQuery, AuditRecord, Identity, MadeToken, Token, TokenRequest
from api.gen.mcp.v1 import access_pb2 as pb
from api.gen.mcp.v1.access_pb2_grpc import AccessServiceStub
from api.wire import from_wire, to_wire


class AccessClient:
    """Asks an agent who may call it. `call` sends a request as the whole client does, and translates its errors."""

    def __init__(self, stub: AccessServiceStub, call: Callable[[Any, Any], Awaitable[Any]]) -> None:
        self._stub = stub
        self._call = call

    async def whoami(self) -> Identity:
        """Whom the agent takes us for."""
        answer: pb.WhoAmIResponse = await self._call(self._stub.WhoAmI, pb.WhoAmIRequest())
        return from_wire(answer.identity, Identity)

    async def create_token(self, wanted: TokenRequest) -> MadeToken:
        """Makes a token. Raises Refused where one of that name is valid."""
        request = pb.CreateTokenRequest(token=to_wire(wanted, pb.TokenRequest()))
        answer: pb.CreateTokenResponse = await self._call(self._stub.CreateToken, request)
        return MadeToken(from_wire(answer.token, Token), answer.secret)

    async def tokens(self) -> tuple[Token, ...]:
        """All tokens of the node, by name."""
        answer: pb.ListTokensResponse = await self._call(self._stub.ListTokens, pb.ListTokensRequest())
        return tuple(from_wire(token, Token) for token in answer.tokens)

    async def revoke_token(self, name: str) -> Token:
        """Ends a token's validity. Raises NotFound."""
        answer: pb.RevokeTokenResponse = await self._call(self._stub.RevokeToken, pb.RevokeTokenRequest(name=name))
        return from_wire(answer.token, Token)

    async def audit(self, query: AuditQuery) -> tuple[AuditRecord, ...]:
        """The newest records, newest last."""
        request = pb.ListAuditRequest(query=to_wire(query, pb.AuditQuery()))
        answer: pb.ListAuditResponse = await self._call(self._stub.ListAudit, request)
        return tuple(from_wire(record, AuditRecord) for record in answer.records)
