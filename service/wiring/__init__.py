"""The composition root: with its adapters, the only room that names concrete things and puts them together."""

from __future__ import annotations

import logging
import os
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial

from service.audit.continuity import Continuity
from service.audit.keeper import Keeper
from service.audit.matching import Matching
from service.audit.reading import Reading
from service.audit.stream import AuditStream
from service.audit.stream import LinesFile as LinesFile
from service.audit.stream import Sink as Sink
from service.audit.stream import StandardOutput as StandardOutput
from service.audit.syslog import Syslog as Syslog
from service.audit.trail import Trail
from service.auth.acting import ActingUsers
from service.auth.authenticator import Authenticator
from service.auth.keys import Keys
from service.auth.rotation import KeyChanges
from service.auth.standing import Standing
from service.embeddings import Embedder as Embedder
from service.embeddings.batching import Batched as Batched
from service.embeddings.minilm import MiniLM as MiniLM
from service.embeddings.providers import ProviderEmbedder as ProviderEmbedder
from service.engine import Engine, refuse_environment
from service.engine.mem0_import import import_mem0 as import_mem0
from service.errors import KeyringUnavailable, RecordUnavailable
from service.holds.membership import Membership
from service.holds.waiting import WaitingHolds
from service.index.edge import EdgeIndex as EdgeIndex
from service.index.interface import Index
from service.index.interface import IndexDamaged as IndexDamaged
from service.jobs.handlers import Jobs
from service.memories.actions import Memories
from service.memories.adds import Adds
from service.memories.batch import Batches
from service.memories.changing import ModelChange
from service.memories.consolidating import Consolidations
from service.memories.entities import Entities
from service.memories.events import Events
from service.memories.extraction import Extractions
from service.memories.feedback import Feedbacks
from service.memories.indexing import Indexing
from service.memories.interactions import Interactions
from service.memories.reviews import Reviews
from service.memories.rewording import Rewording
from service.memories.summaries import Summaries
from service.memories.upkeep import Upkeep
from service.policy.gate import Gate
from service.portability.exports import Exports
from service.portability.imports import Imports
from service.portability.projections import Projections
from service.queue.tasks import Queue
from service.queue.workers import Workers as Workers
from service.retention.assembly import open_erasing, open_erasures
from service.retention.coverage import Coverage
from service.retention.erasures import Erasures
from service.retention.hold_journal import HoldJournal
from service.retention.holds import Holds
from service.retention.rules import RetentionRules
from service.retention.runs import Runs
from service.retention.sweeping import RetentionJobs
from service.retention.work import ErasureWork
from service.settings import Audit as Audit
from service.settings import Settings
from service.storage.announced import AnnouncedRecord, Announcer
from service.storage.database import Database
from service.storage.keyring import Keyring
from service.storage.outbox import Outbox
from service.storage.quarantine import Quarantine
from service.storage.tasks import Tasks
from service.storage.tombstones import Tombstones
from service.tenants.actions import DEFAULT_TENANT as DEFAULT_TENANT
from service.tenants.actions import Tenants
from service.tenants.belonging import check_keyring
from service.tenants.identities import Identities
from service.tenants.languages import Languages
from service.tenants.projects import Projects
from service.tenants.quotas import Quotas
from service.tenants.rates import Rates
from service.tenants.refusals import Refusals
from service.tenants.subjects import Subjects
from service.webhooks.actions import Webhooks
from service.wiring.adapters import engine_home, sinks
from service.wiring.adapters import llm_settings as llm_settings
from service.wiring.asking import ask_index_server as ask_index_server
from service.wiring.asking import index_owner as index_owner
from service.wiring.asking_briefly import BrieflyAsked
from service.wiring.authentication import open_authenticator
from service.wiring.backups import make_backup as make_backup
from service.wiring.backups import restore_backup as restore_backup
from service.wiring.consolidating import open_changed as open_changed
from service.wiring.counting import count_memories as count_memories
from service.wiring.counting import count_memories_of as count_memories_of
from service.wiring.counting import outbox_standing as outbox_standing
from service.wiring.embedding import ask_for as ask_for
from service.wiring.embedding import open_change, open_serving
from service.wiring.key_commands import move_keyring as move_keyring
from service.wiring.key_commands import rewrap_keyring as rewrap_keyring
from service.wiring.keys import open_keys
from service.wiring.notifying import open_announcer, open_webhooks
from service.wiring.portability import open_portability as open_portability
from service.wiring.reaching import Connections as Connections
from service.wiring.reaching import prepare_data_dir as prepare_data_dir
from service.wiring.reaching import reach_record as reach_record
from service.wiring.readiness import Part as Part
from service.wiring.readiness import ask_index, parts_of
from service.wiring.sealing import audited_tenants as audited_tenants
from service.wiring.sealing import check_database as check_database
from service.wiring.sealing import held_back, open_continuity, trail_jobs
from service.wiring.sealing import seal_trail as seal_trail
from service.wiring.settling import settle as settle
from service.wiring.stores import open_stores
from service.wiring.tracing import open_tracing as open_tracing
from service.wiring.tracing import traced, traced_actions
from service.wiring.watching import note_verification as note_verification
from service.wiring.watching import watch
from service.wiring.working import open_workers

_log = logging.getLogger("memvault")


@dataclass(frozen=True, slots=True)
class Installation:
    """What the installation's plane works with: the record and the keyring, without index and engine."""

    settings: Settings
    connections: Connections
    database: Database
    keyring: Keyring
    record: AnnouncedRecord
    waiting_holds: WaitingHolds
    announcer: Announcer
    tenants: Tenants
    languages: Languages
    keys: Keys
    key_changes: KeyChanges
    standing: Standing
    trail: Trail
    reading: Reading
    matching: Matching
    gate: Gate
    subjects: Subjects
    holds: Holds
    hold_journal: HoldJournal
    refusals: Refusals
    quotas: Quotas
    identities: Identities
    retention_rules: RetentionRules
    retention_runs: Runs
    consolidations: Consolidations
    queue: Queue
    tasks: Tasks
    tombstones: Tombstones
    erasures: Erasures


@dataclass(frozen=True, slots=True)
class Services:
    """What the faces call."""

    settings: Settings
    installation: Installation
    authenticator: Authenticator
    acting: ActingUsers
    rates: Rates
    memories: Memories
    adds: Adds
    interactions: Interactions
    batches: Batches
    events: Events
    entities: Entities
    erasures: Erasures
    erasing: ErasureWork
    retention_jobs: RetentionJobs
    exports: Exports
    projections: Projections
    imports: Imports
    projects: Projects
    reviews: Reviews
    feedback: Feedbacks
    summaries: Summaries
    keys: Keys
    key_changes: KeyChanges
    identities: Identities
    webhooks: Webhooks
    jobs: Jobs
    engine: Engine
    index: Index
    record_asked: BrieflyAsked
    keyring_asked: BrieflyAsked
    index_asked: BrieflyAsked
    indexing: Indexing
    change: ModelChange
    outbox: Outbox
    upkeep: Upkeep | None
    continuity: Continuity
    #: One where this process runs the worker, which seals the trail too; none elsewhere.
    keepers: list[Keeper] = field(default_factory=list)

    def readiness(self) -> list[Part]:
        """See `service.wiring.readiness.parts_of`."""
        return parts_of(self)


def open_installation(settings: Settings, connections: Connections, stack: ExitStack) -> Installation:
    """Open the record and the keyring.

    Raises:
        ConfigurationError: for a role that row-level security does not bind, and a keyring that is not this record's.
    """
    database = Database(
        connections.app_dsn,
        pool_size=settings.database.pool_size,
        prepared_statements=settings.database.prepared_statements,
    )
    stack.callback(database.close)
    database.check_role()
    keyring, tombstones = open_keys(settings, stack)
    with database.tenant_blind() as connection:
        check_keyring(connection, keyring)
    subjects = Subjects(keyring)
    languages = Languages(database, settings.index.language)
    trail = Trail(database, keyring)
    gate = Gate(trail)
    refusals = Refusals(database, trail)
    queue = Queue(database.dsn)
    announcer = open_announcer(settings, queue)
    membership = Membership(keyring)
    record = AnnouncedRecord(keyring, membership, announcer)
    waiting_holds = WaitingHolds(Quarantine(keyring, record), membership)
    coverage = Coverage(keyring, record)
    journal = HoldJournal(database, keyring, coverage, tombstones)
    issuer = settings.auth.oidc.issuer or ""
    keys = Keys(database, keyring, subjects, trail, gate, tombstones, issuer=issuer)
    standing = Standing(database, trail, leeway=settings.auth.oidc.leeway)
    return Installation(
        settings=settings,
        connections=connections,
        database=database,
        keyring=keyring,
        tenants=Tenants(database, keyring, trail, languages),
        languages=languages,
        record=record,
        waiting_holds=waiting_holds,
        announcer=announcer,
        keys=keys,
        key_changes=KeyChanges(database, keys, trail, gate),
        trail=trail,
        standing=standing,
        reading=Reading(database, keyring, trail, gate, standing, subjects),
        matching=Matching(database, keyring, trail, gate, subjects, per_minute=settings.audit.matches_per_minute),
        gate=gate,
        subjects=subjects,
        holds=Holds(database, keyring, subjects, trail, gate, journal, coverage),
        hold_journal=journal,
        refusals=refusals,
        quotas=Quotas(settings.quotas, database, refusals),
        identities=Identities(database, keyring, subjects, trail, gate),
        retention_rules=RetentionRules(database, keyring, subjects, trail, gate),
        retention_runs=Runs(settings, database, keyring, record, trail, gate),
        consolidations=Consolidations(database, record, trail, similarity=settings.duplicates.similarity),
        queue=queue,
        tasks=Tasks(database),
        tombstones=tombstones,
        erasures=open_erasures(database, keyring, record, waiting_holds, subjects, trail, gate, queue, tombstones),
    )


def open_services(installation: Installation, stack: ExitStack, *, upkeep: bool = True, faces: bool = True) -> Services:
    """Open the index and the models and build the actions. Mem0 is imported in the background.

    `upkeep` is for a process that serves or works: a database that was restored is brought up to what was erased and
    held after that, and the index is kept in step and in shape by threads of its own, until the stack closes. `faces`
    is for one that is called, which alone needs the keys of an issuer.

    Raises:
        ConfigurationError: when a folder is in use or damaged, the model is missing, or the environment is unsafe.
    """
    settings = installation.settings
    database, keyring, queue = installation.database, installation.keyring, installation.queue
    tenants, languages = installation.tenants, installation.languages
    llm = llm_settings(settings.llm)
    refuse_environment(os.environ, llm)
    generations, index = open_serving(installation, stack)
    stack.callback(index.close)
    webhooks, deliveries = open_webhooks(installation)
    outbox = Outbox(database)
    stores = open_stores(installation, index, generations)
    indexing = Indexing(
        database, stores.record, keyring, index, generations, outbox, installation.tasks, languages=languages
    )
    engine = traced(Engine(llm, generations.embedder, home=engine_home(settings)), "engine")
    engine.start_loading()
    events = Events(stores)
    memories = Memories(stores, indexing)
    projects = Projects(database, installation.subjects, installation.trail, installation.gate, languages)
    adds = Adds(stores, indexing, events, queue, extraction=llm is not None, projects=projects)
    entities = Entities(stores, indexing)
    reviews = Reviews(stores, indexing)
    exports = Exports(stores)
    change = open_change(installation, generations, indexing, stack)
    erasing = open_erasing(
        stores,
        indexing,
        entities,
        installation.erasures,
        change,
        tenants,
        maintenance_dsn=installation.connections.maintenance_dsn,
    )
    jobs = Jobs(
        database=database,
        tenants=tenants,
        extractions=Extractions(stores, indexing, engine, queue, projects),
        entities=entities,
        reviews=reviews,
        indexing=indexing,
        tasks=installation.tasks,
        erasures=erasing,
        quotas=installation.quotas,
        deliveries=deliveries,
        exports=exports,
        change=change,
        rewording=Rewording(database, languages, indexing, index, generations, queue),
        queue=queue,
    )
    beside = _start_upkeep(installation, indexing, index, erasing, change, stack) if upkeep else None
    services = Services(
        settings=settings,
        installation=installation,
        authenticator=open_authenticator(installation, stack, faces=faces),
        acting=ActingUsers(database, installation.subjects),
        rates=Rates(database, installation.quotas, installation.refusals),
        memories=memories,
        adds=adds,
        batches=Batches(stores, indexing),
        interactions=Interactions(stores, memories, adds, installation.identities),
        events=events,
        entities=entities,
        erasures=installation.erasures,
        erasing=erasing,
        retention_jobs=RetentionJobs(settings, database, installation.retention_runs, queue, tenants.living_ids),
        exports=exports,
        projections=Projections(stores, exports, engine),
        imports=Imports(stores, indexing),
        projects=projects,
        reviews=reviews,
        feedback=Feedbacks(stores),
        summaries=Summaries(stores, engine, offered=llm is not None),
        keys=installation.keys,
        key_changes=installation.key_changes,
        identities=installation.identities,
        webhooks=webhooks,
        jobs=jobs,
        engine=engine,
        index=index,
        record_asked=BrieflyAsked(database.ping, store="Postgres, the record,", away=RecordUnavailable),
        keyring_asked=BrieflyAsked(keyring.ping, store="the keyring", away=KeyringUnavailable),
        index_asked=BrieflyAsked(partial(ask_index, index)),
        indexing=indexing,
        change=change,
        outbox=outbox,
        upkeep=beside,
        continuity=open_continuity(database, stack, watched=upkeep),
    )
    if upkeep:
        watch(services, stack)
    return traced_actions(services)


def start_worker(services: Services, stack: ExitStack) -> Workers:
    """Run the worker in the background until the stack closes, and seal the audit trail.

    Raises:
        ConfigurationError: when the key that signs checkpoints is missing or in the wrong place.
    """
    settings = services.settings
    sealing = seal_trail(services.installation)
    handlers = {**services.jobs.handlers(), **services.retention_jobs.handlers()}
    periodic = {
        **services.jobs.periodic(),
        **trail_jobs(services.installation, sealing),
        **services.retention_jobs.periodic(),
        **services.installation.consolidations.periodic(
            settings.duplicates.look,
            services.installation.tenants.living_ids,
            changed=open_changed(services.installation, services.engine),
        ),
    }
    held = {name: held_back(services, handler) for name, handler in handlers.items()}
    timed = {name: (cron, held_back(services, work)) for name, (cron, work) in periodic.items()}
    workers = open_workers(settings, services.installation.database.dsn, held, timed)
    sealing.keeper.start()
    services.keepers.append(sealing.keeper)
    stack.callback(sealing.keeper.stop)
    workers.start()
    stack.callback(workers.stop)
    return workers


def _start_upkeep(
    installation: Installation,
    indexing: Indexing,
    index: Index,
    erasing: ErasureWork,
    change: ModelChange,
    stack: ExitStack,
) -> Upkeep:
    """Bring a restored database up to date, then start the threads beside the requests, until the stack closes."""
    settings = installation.settings
    # Before anything is served: what a restored database does not know of is done again.
    settle(installation, erasing, index)
    every = settings.index.maintenance_interval
    upkeep = Upkeep(indexing, index, installation.tenants.living_ids, maintenance_interval=every)
    for one in (upkeep, change):
        one.start()
        stack.callback(one.stop)
    for sink in sinks(settings.audit):
        stream = AuditStream(installation.database, sink)
        stream.start()
        stack.callback(stream.stop)
    return upkeep
