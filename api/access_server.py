"""The agent's API about access, over gRPC: as thin as api.server."""

from google.protobuf.message import Message
from pydantic import ValidationError

from api.access import Access, AuditQuery, TokenRequest, caller
from api.complaints import complaints
from api.errors import InvalidSpec, Unauthenticated
from api.gen.mcp.v1 import access_pb2 as pb
from api.gen.mcp.v1.access_pb2_grpc import AccessServiceServicer
from api.server import Context, actor
from api.wire import AnyModel, from_wire, to_wire


class AccessServicer(AccessServiceServicer):
    """Serves access; see access.proto for what each call means."""

    def __init__(self, access: Access) -> None:
        self._access = access

    async def WhoAmI(self, request: pb.WhoAmIRequest, context: Context) -> pb.WhoAmIResponse:
        """The caller, as the door knows them."""
        identity = caller()
        if identity is None:
            raise Unauthenticated("nobody stands at this door")
        return pb.WhoAmIResponse(identity=to_wire(identity, pb.Identity()))

    async def CreateToken(self, request: pb.CreateTokenRequest, context: Context) -> pb.CreateTokenResponse:
        """Makes a token."""
        wanted = _checked(request.token, TokenRequest)
        made = await self._access.create_token(wanted, actor=actor(context))
        return pb.CreateTokenResponse(token=to_wire(made.token, pb.Token()), secret=made.secret)

    async def ListTokens(self, request: pb.ListTokensRequest, context: Context) -> pb.ListTokensResponse:
        """All tokens."""
        tokens = await self._access.tokens()
        return pb.ListTokensResponse(tokens=[to_wire(token, pb.Token()) for token in tokens])

    async def RevokeToken(self, request: pb.RevokeTokenRequest, context: Context) -> pb.RevokeTokenResponse:
        """Ends a token's validity."""
        token = await self._access.revoke_token(request.name)
        return pb.RevokeTokenResponse(token=to_wire(token, pb.Token()))

    async def ListAudit(self, request: pb.ListAuditRequest, context: Context) -> pb.ListAuditResponse:
        """The newest records."""
        records = await self._access.audit(_checked(request.query, AuditQuery))
        return pb.ListAuditResponse(records=[to_wire(record, pb.AuditRecord()) for record in records])


def _checked(message: Message, model: type[AnyModel]) -> AnyModel:
    try:
        return from_wire(message, model)
    except ValidationError as error:
        first = complaints(error)[0]
        raise InvalidSpec(first.field, first.message) from error
