"""The scene of an attack: two tenants with the same data, the attackers' keys, and what can be aimed at."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Final
from uuid import UUID, uuid4

import psycopg
from psycopg.rows import TupleRow

from service import clock
from service.api.admin.erasure_schemas import ErasureIn
from service.api.admin.erasure_translate import target_of
from service.api.platform.routes_exports import _lines as lines_of
from service.audit.selection import Selection
from service.audit.tenant_details import ProjectField
from service.auth.keys import Grant
from service.filters.ast import Condition, Field, Op
from service.holds.rules import RuleBody
from service.holds.spans import Span
from service.policy.table import ROLES
from service.portability.exports import Wanted
from service.records import Event, Identity, Message, NewMemories, SubjectNames
from service.retention.holds import NewHold
from service.scope import Caller, Principal, PrincipalKind, SubjectKind, TenantId
from service.webhooks.announcing import EventType
from service.wiring import Services
from tests.isolation.attack.calls import Wire
from tests.isolation.attack.lines import HOOK
from tests.isolation.attack.surface import LINES, Parts

UUIDS: Final = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", re.IGNORECASE)
_NAME: Final = re.compile(r"(zoe|user|agent|app|run)-([0-9a-f]{8})")
HOLE: Final = re.compile(r"<([a-z]+)>")
#: Kinds whose things a call of the attacker can name because they are names, not ids.
NAMES: Final = ("user", "agent", "app", "run")
_ADMIN: Final = ROLES["admin"]
#: How many of a tenant's newest retention rules stay; it may have 200.
_RULES_KEPT: Final = 40


@dataclass(frozen=True)
class Attacker:
    """Who attacks. `tenant` is None for a key that is no credential; `full` ones try everything, others the plain."""

    name: str
    secret: str
    tenant: TenantId | None
    principal: Principal | None
    full: bool = False
    neighbour: bool = False


class World:
    """What all scenes of a run share: the services and the running app."""

    def __init__(self, services: Services, superuser: psycopg.Connection[TupleRow], wire: Wire) -> None:
        self.services = services
        self.wire = wire
        self._superuser = superuser
        self._numbers = itertools.count(1)

    def unique(self) -> str:
        """Return eight hexadecimal digits that no scene of this run was given before."""
        # An odd factor gives each number below 2^32 another one, and neighbours little in common.
        return f"{next(self._numbers) * 0x9E3779B1 % 2**32:08x}"

    def rows(self, query: str, values: Iterable[object] = ()) -> list[tuple[Any, ...]]:
        """Return rows as a superuser sees them."""
        return self._superuser.execute(query, list(values)).fetchall()  # type: ignore[arg-type]

    @cached_property
    def tenant_tables(self) -> list[str]:
        """Every table with rows of tenants."""
        rows = self.rows(
            "SELECT table_name FROM information_schema.columns WHERE column_name = 'tenant_id'"
            " AND table_schema = 'public' ORDER BY 1"
        )
        # Work that is due, which is done meanwhile.
        return [row[0] for row in rows if row[0] not in ("outbox", "tasks", "audit_due")]


class Scene:
    """Two tenants of an attack's own. The victim is in `there`; the attackers are in `here`, one is a neighbour."""

    def __init__(self, world: World) -> None:
        self.world = world
        tenants = world.services.installation.tenants
        name = clock.new_random_id().hex
        self.there, self.here = tenants.create(f"there-{name}").id, tenants.create(f"here-{name}").id
        self.callers = {tenant: self._caller(tenant) for tenant in (self.there, self.here)}
        self._victims: dict[str, str] = {}
        self._controls: dict[str, str] = {}
        self._secrets: set[str] | None = None
        self._own: dict[tuple[TenantId, str], str] = {}
        self._rules: Counter[TenantId] = Counter()
        for tenant in (self.there, self.here):
            for user in ("alice", "bob"):
                self.add(tenant, SubjectNames(user_id=user), text="Likes tea with lemon")
        bound = Grant(_ADMIN, users=frozenset({"alice"}), owner="ada")
        revoked = world.services.installation.keys.mint_for_installation(self.there, Grant(_ADMIN))
        world.services.installation.keys.revoke_for_installation(self.there, revoked.id)
        self.attackers = (
            self._attacker("another tenant's admin", self.here, Grant(_ADMIN, owner="ada"), full=True),
            self._attacker("a neighbour with a bound key", self.there, bound, full=True, neighbour=True),
            self._attacker("another tenant's bound key", self.here, bound),
            self._attacker("another tenant's reader", self.here, Grant(ROLES["reader"])),
            Attacker("a revoked key of the victim's tenant", revoked.secret, None, None),
        )

    def aim(self, attacker: Attacker, kind: str) -> tuple[str, str]:
        """Return what an attacker aims at, and what looks the same and does not exist."""
        if kind == "tenant" and attacker.neighbour:
            # Its own tenant is the victim's, and no secret.
            return str(self.here), self.control(kind)
        return self.victim(kind), self.control(kind)

    def victim(self, kind: str) -> str:
        """Return a thing of the victim's, made on first use."""
        if kind not in self._victims:
            self._victims[kind] = MAKERS[kind](self, self.there, f"zoe-{self.unique()}")
        return self._victims[kind]

    def control(self, kind: str) -> str:
        """Return what looks like the victim's thing and does not exist."""
        if kind not in self._controls:
            self._controls[kind] = unlike(self.victim(kind))
        return self._controls[kind]

    def own(self, attacker: Attacker, kind: str, *, fresh: bool) -> str:
        """Return a thing of the attacker's own."""
        tenant = attacker.tenant or self.here
        if fresh or (tenant, kind) not in self._own:
            self._own[tenant, kind] = MAKERS[kind](self, tenant, "alice")
        return self._own[tenant, kind]

    def make_room_for_rules(self, tenant: TenantId) -> None:
        """Remove old rules at times: a tenant that is full of its own refuses everything alike, which proves nothing.

        The newest stay, since calls that are about to be sent name them.
        """
        self._rules[tenant] += 1
        if self._rules[tenant] % _RULES_KEPT:
            return
        rules, caller = self.world.services.installation.retention_rules, self.callers[tenant]
        kept = {self._victims.get("rule"), self._own.get((tenant, "rule"))}
        old = sorted(rule.id for rule in rules.list(caller, caller.scope))[:-_RULES_KEPT]
        for rule_id in old:
            if str(rule_id) not in kept:
                rules.remove(caller, caller.scope, rule_id)

    def filled(self, attacker: Attacker, parts: Parts, *, fresh: bool) -> Parts:
        """Return the parts with things of the attacker's own in their holes."""

        def fill(value: Any) -> Any:
            if isinstance(value, str) and (hole := HOLE.fullmatch(value)):
                return self.own(attacker, hole[1], fresh=fresh)
            if isinstance(value, dict):
                return {key: fill(one) for key, one in value.items()}
            if isinstance(value, list):
                return [fill(one) for one in value]
            return value

        return replace(parts, path=fill(dict(parts.path)), query=fill(dict(parts.query)), body=fill(parts.body))

    def secrets(self, attacker: Attacker) -> set[str]:
        """Return the ids that an answer to this attacker must not hold."""
        if attacker.neighbour:
            found = self._victims_ids()
            rows = self.world.rows(
                "SELECT m.id FROM memories m WHERE m.tenant_id = %s AND m.user_id IS DISTINCT FROM %s",
                [self.there, self.subject(self.there, "alice")],
            )
            return found | {str(row[0]) for row in rows}
        if self._secrets is None:
            self._secrets = self._ids_there()
        return self._secrets

    def _ids_there(self) -> set[str]:
        """Return every id in the victim's tenant."""
        found = {str(self.there)}
        for table in self.world.tenant_tables:
            for (row,) in self.world.rows(
                f"SELECT to_jsonb(t)::text FROM {table} t WHERE tenant_id = %s", [self.there]
            ):
                found |= set(UUIDS.findall(row))
        return found - {str(UUID(int=0)), str(UUID(int=1))}

    def digest(self, attacker: Attacker) -> dict[str, object]:
        """Return what must be the same after the attack: the victim's rows, counted and digested, and its points."""
        found: dict[str, object] = {}
        mine = self._mine() if attacker.neighbour else None
        for table in self.world.tenant_tables:
            if attacker.neighbour and table == "audit":
                continue
            rows = self.world.rows(
                f"SELECT (to_jsonb(t) - 'last_used_at')::text FROM {table} t WHERE tenant_id = %s ORDER BY 1",
                [self.there],
            )
            found[table] = [row[0] for row in rows if mine is None or any(one in row[0] for one in mine)]
        versions = self.world.services.index.of(self.callers[self.there].scope).versions()[0]
        found["index"] = {
            str(one): version for one, version in dict(versions).items() if mine is None or str(one) in mine
        }
        return found

    def subject(self, tenant: TenantId, user: str) -> UUID | None:
        """Return a user's surrogate, or None."""
        services = self.world.services
        scope = self.callers[tenant].scope
        with services.installation.database.transaction(scope) as connection:
            found = services.installation.subjects.find(connection, scope, [(SubjectKind.USER, user)])
        return next(iter(found.values()), None)

    def add(
        self,
        tenant: TenantId,
        names: SubjectNames,
        *,
        text: str | None = None,
        key: str | None = None,
        request: str = "r",
        connector: str | None = None,
    ) -> Event:
        """Remember something in a tenant."""
        caller = replace(self.callers[tenant], request_id=request)
        metadata = {"topic": "drinks"} | ({} if connector is None else {"connector": connector})
        told = Message("user", text or f"Likes tea with lemon, {self.unique()}")
        new = NewMemories([told], names, metadata=metadata, categories=("food",), infer=False)
        return self.world.services.adds.add(caller, caller.scope, new, idempotency_key=key)

    def unique(self) -> str:
        """Return eight hexadecimal digits that nobody else has."""
        return self.world.unique()

    def _mine(self) -> set[str]:
        """Return the ids and surrogates of the victims in the neighbour's tenant."""
        rows = self.world.rows(
            "SELECT m.id, m.user_id FROM memories m WHERE m.tenant_id = %s AND m.user_id IS DISTINCT FROM %s",
            [self.there, self.subject(self.there, "alice")],
        )
        return {str(one) for row in rows for one in row if one} | self._victims_ids()

    def _victims_ids(self) -> set[str]:
        """Return the ids of what was made for the victim."""
        return {one for kind, one in self._victims.items() if UUIDS.fullmatch(one) and kind != "tenant"}

    def _caller(self, tenant: TenantId) -> Caller:
        principal, _ = self._minted(tenant, Grant(_ADMIN, owner="ben"))
        return Caller(principal, request_id="scene", client="scene")

    def _minted(self, tenant: TenantId, grant: Grant) -> tuple[Principal, str]:
        keys = self.world.services.installation.keys
        minted = keys.mint_for_installation(tenant, grant)
        principal = keys.find_principal(minted.secret)
        assert principal is not None
        return principal, minted.secret

    def _attacker(
        self, name: str, tenant: TenantId, grant: Grant, *, full: bool = False, neighbour: bool = False
    ) -> Attacker:
        principal, secret = self._minted(tenant, grant)
        return Attacker(name, secret, tenant, principal, full, neighbour)


def unlike(value: str) -> str:
    """Return something of the same shape that does not exist."""
    if found := set(UUIDS.findall(value)):
        new = {one: str(clock.new_id()) for one in found}
        value = UUIDS.sub(lambda one: new[one[0]], value)
        return _NAME.sub(lambda one: f"{one[1]}-{_other(one[2])}", value)
    return value[:-8] + _other(value[-8:])


def _other(digits: str) -> str:
    """Return other hexadecimal digits."""
    return "".join(f"{int(one, 16) ^ 8:x}" if one in "0123456789abcdef" else one for one in digits)


def _cursor(scene: Scene, tenant: TenantId, user: str) -> str:
    for _ in range(3):
        scene.add(tenant, SubjectNames(user_id=user))
    caller = scene.callers[tenant]
    page = scene.world.services.installation.reading.page(caller, caller.scope, Selection(), size=1)
    assert page.next_cursor is not None
    return page.next_cursor


def _named(kind: str) -> Callable[[Scene, TenantId, str], str]:
    def make(scene: Scene, tenant: TenantId, user: str) -> str:
        if kind == "user" and user != "alice":
            scene.add(tenant, SubjectNames(user_id=user))
            return user
        name = f"{kind}-{scene.unique()}"
        if kind == "user":
            return "alice"
        scene.add(tenant, SubjectNames(user_id=user, **{f"{kind}_id": name}))
        return name

    return make


def _idempotency(scene: Scene, tenant: TenantId, user: str) -> str:
    key = f"once-{scene.unique()}"
    scene.add(tenant, SubjectNames(user_id=user), key=key)
    return key


def _request(scene: Scene, tenant: TenantId, user: str) -> str:
    request = f"job-{scene.unique()}"
    scene.add(tenant, SubjectNames(user_id=user), request=request)
    return request


def _memory(scene: Scene, tenant: TenantId, user: str) -> str:
    return str(scene.add(tenant, SubjectNames(user_id=user)).results[0].memory_id)


def _subject(scene: Scene, tenant: TenantId, user: str) -> str:
    scene.add(tenant, SubjectNames(user_id=user))
    return str(scene.subject(tenant, user))


def _audit(scene: Scene, tenant: TenantId, user: str) -> str:
    scene.add(tenant, SubjectNames(user_id=user))
    return str(scene.world.rows("SELECT id FROM audit WHERE tenant_id = %s ORDER BY seq LIMIT 1", [tenant])[0][0])


def _key(scene: Scene, tenant: TenantId, user: str) -> str:
    keys = scene.world.services.installation.keys
    return str(keys.mint_for_installation(tenant, Grant(ROLES["reader"], users=frozenset({user}))).id)


def _connector(scene: Scene, tenant: TenantId, user: str) -> str:
    name = f"connector-{scene.unique()}"
    scene.add(tenant, SubjectNames(user_id=user), connector=name)
    return name


def _erasure(scene: Scene, tenant: TenantId, user: str) -> str:
    run = _named("run")(scene, tenant, user)
    caller = scene.callers[tenant]
    return str(scene.world.services.erasures.request(caller, caller.scope, target_of(ErasureIn(run_id=run))).id)


def _hold(scene: Scene, tenant: TenantId, user: str) -> str:
    """Place a hold on a run, as somebody who is nobody of the suite."""
    memory = scene.add(tenant, SubjectNames(user_id=user)).results[0].memory_id
    principal = Principal(tenant, uuid4(), _ADMIN, kind=PrincipalKind.TOKEN, person=uuid4())
    stranger = Caller(principal, request_id="scene")
    new = NewHold(f"case-{scene.unique()}", "why", memory_ids=[memory])
    return str(scene.world.services.installation.holds.place(stranger, stranger.scope, new).stored.id)


def _slug(scene: Scene, tenant: TenantId, user: str) -> str:
    """Return what a hold or a rule is called."""
    scene.make_room_for_rules(tenant)
    return f"case-{scene.unique()}"


def _rule(scene: Scene, tenant: TenantId, user: str) -> str:
    scene.make_room_for_rules(tenant)
    caller = scene.callers[tenant]
    body = RuleBody(f"rule-{scene.unique()}", where=Condition(Field.USER, Op.EQ, user), age=Span("P100Y"))
    return str(scene.world.services.installation.retention_rules.create(caller, caller.scope, body).id)


def _retention_run(scene: Scene, tenant: TenantId, user: str) -> str:
    caller = scene.callers[tenant]
    return str(scene.world.services.installation.retention_runs.start(caller, caller.scope, dry=True).id)


def _export(scene: Scene, tenant: TenantId, user: str) -> str:
    scene.add(tenant, SubjectNames(user_id=user))
    caller = scene.callers[tenant]
    return str(scene.world.services.exports.request(caller, caller.scope, Wanted(SubjectNames(user_id=user))))


def _lines(scene: Scene, tenant: TenantId, user: str) -> str:
    """Return an export, as it is imported."""
    scene.add(tenant, SubjectNames(user_id=user))
    caller = scene.callers[tenant]
    batches = scene.world.services.exports.read(caller, caller.scope, Wanted(SubjectNames(user_id=user)))
    return b"".join(lines_of(batches)).decode()


def _identity(scene: Scene, tenant: TenantId, user: str) -> str:
    caller = scene.callers[tenant]
    account = Identity("slack", f"account-{scene.unique()}")
    return str(scene.world.services.identities.link(caller, caller.scope, account, user).id)


def _webhook(scene: Scene, tenant: TenantId, user: str) -> str:
    caller = scene.callers[tenant]
    made = scene.world.services.webhooks.create(caller, caller.scope, "cache", HOOK, [EventType.DELETED])
    return str(made.id)


def _review(scene: Scene, tenant: TenantId, user: str) -> str:
    """Have something wait for a reviewer, and nothing after it."""
    caller, own, services = scene.callers[tenant], str(tenant), scene.world.services
    new = NewMemories([Message("user", f"Likes tea with lemon, {scene.unique()}")], SubjectNames(user_id=user))
    services.projects.update(caller, caller.scope, own, own, {ProjectField.REVIEW_REQUIRED: True})
    event = services.adds.add(caller, caller.scope, new)
    services.projects.update(caller, caller.scope, own, own, {ProjectField.REVIEW_REQUIRED: False})
    return str(event.results[0].memory_id)


#: How to make one thing of each kind for a user of a tenant; each returns what a call names it by.
MAKERS: Final[dict[str, Callable[[Scene, TenantId, str], str]]] = {
    **{kind: _named(kind) for kind in NAMES},
    "memory": _memory,
    "event": lambda scene, tenant, user: str(scene.add(tenant, SubjectNames(user_id=user)).id),
    "review": _review,
    # There are none, and it is not asked for one.
    "job": lambda scene, tenant, user: str(clock.new_random_id()),
    "key": _key,
    "subject": _subject,
    "request": _request,
    "audit": _audit,
    "connector": _connector,
    "erasure": _erasure,
    "export": _export,
    "hold": _hold,
    "rule": _rule,
    "sweep": _retention_run,
    "slug": _slug,
    "identity": _identity,
    "webhook": _webhook,
    "place": lambda scene, tenant, user: f"memories:{_memory(scene, tenant, user)}",
    LINES: _lines,
    "cursor": _cursor,
    "idempotency": _idempotency,
    "tenant": lambda scene, tenant, user: str(tenant),
    # A text that was not remembered before.
    "words": lambda scene, tenant, user: f"Likes tea with lemon, {scene.unique()}",
}
