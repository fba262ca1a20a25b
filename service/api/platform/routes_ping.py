"""GET /v1/ping/: what every client asks first."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.responses import Response

from service.api.deps import CallerDep, Mem0Route, ServicesDep, acts
from service.api.errors import errors
from service.api.platform.schemas import PingOut
from service.api.replies import Reply
from service.policy.ping import Ping
from service.scope import Action

router = APIRouter(route_class=Mem0Route, tags=["clients"])


@router.get("/v1/ping/", summary="Where does this key belong?", response_model=PingOut, responses=errors())
@acts(Action.PING)
def ping(caller: CallerDep, services: ServicesDep) -> Response:
    """Show that the key is good and name its tenant. No e-mail: clients would send it away as a telemetry id."""
    installation = services.installation
    Ping(installation.database, installation.trail, installation.gate).ping(caller, caller.scope)
    tenant = str(caller.principal.tenant_id)
    return Reply({"status": "ok", "org_id": tenant, "project_id": tenant, "user_email": None})
