"""What each tool does: one action of the service, with the caller's credential. Synchronous."""

from __future__ import annotations

from service import clock
from service.errors import InvalidInput
from service.filters.parse import parse_filter
from service.mcp.schemas import (
    AddMemoryInput,
    AddOutput,
    ContextOutput,
    DeletedOutput,
    EntitiesOutput,
    EventIdInput,
    EventOutput,
    EventsOutput,
    GetMemoriesInput,
    GetUserContextInput,
    HitsOutput,
    MemoriesOutput,
    MemoryIdInput,
    MemoryOutput,
    PageInput,
    SearchMemoriesInput,
    StoreInteractionSummaryInput,
    Subjects,
    SummaryOutput,
    UpdateMemoryInput,
)
from service.mcp.translate import (
    change_outputs,
    checked_names_of,
    context_output,
    entity_output,
    event_output,
    hit_output,
    identity_of,
    memory_output,
    names_of,
    page_fields,
    uuid_of,
)
from service.memories.actions import UNSET, Edit, Query
from service.memories.interactions import Asked, Summary, only_user
from service.memories.limits import check_text
from service.records import Change, Message, NewMemories, SubjectNames
from service.scope import Action, Caller
from service.wiring import Services


def add_memory(services: Services, caller: Caller, given: AddMemoryInput) -> AddOutput:
    """Add memories, verbatim or by extraction."""
    if given.messages:
        messages = [Message(one.role, one.content, one.name) for one in given.messages]
    elif given.text is not None:
        # By its own name, which the agent gave it.
        check_text(given.text, services.settings.limits, "text")
        messages = [Message("user", given.text)]
    else:
        raise InvalidInput("give text, or messages")
    names = names_of(given)
    if given.identity is None:
        names = SubjectNames(names.user_id or only_user(caller.principal), names.agent_id, names.app_id, names.run_id)
    new = NewMemories(messages, names, metadata=given.metadata or {}, infer=given.infer)
    new = services.identities.adding(caller, caller.scope, new, identity_of(given.identity))
    event = services.adds.add(caller, caller.scope, new)
    if not event.status.is_final:
        message = "Accepted. The memories are being extracted: ask get_event_status with this event_id."
    elif any(one.change is Change.QUARANTINED for one in event.results):
        message = "Waiting for a reviewer; nothing is remembered until it is approved."
    elif event.notes.get("stored") == "verbatim":
        message = "Stored as it is: no language model is configured, so nothing was extracted."
    else:
        message = "Stored."
    return AddOutput(
        message=message,
        status=event.status.value,
        event_id=str(event.id),
        results=change_outputs(event.results),
    )


def search_memories(services: Services, caller: Caller, given: SearchMemoriesInput) -> HitsOutput:
    """Search by meaning and words."""
    where = parse_filter(given.filters)
    where = services.identities.reading(caller, caller.scope, Action.SEARCH, where, identity_of(given.identity))
    query = Query(given.query, where, limit=given.limit, threshold=None)
    return HitsOutput(results=[hit_output(hit) for hit in services.memories.search(caller, caller.scope, query)])


def get_memories(services: Services, caller: Caller, given: GetMemoriesInput) -> MemoriesOutput:
    """List memories, the newest first."""
    where = parse_filter(given.filters)
    page = services.memories.list(
        caller,
        caller.scope,
        services.identities.reading(caller, caller.scope, Action.LIST, where, identity_of(given.identity)),
        page=given.page,
        size=given.page_size,
        on=clock.today(),
    )
    return MemoriesOutput(**page_fields(page), results=[memory_output(memory) for memory in page.items])


def get_memory(services: Services, caller: Caller, given: MemoryIdInput) -> MemoryOutput:
    """Read one memory."""
    return memory_output(services.memories.get(caller, caller.scope, uuid_of(given.memory_id, "memory")))


def update_memory(services: Services, caller: Caller, given: UpdateMemoryInput) -> MemoryOutput:
    """Change a memory's text, and its metadata if given."""
    edit = Edit(text=given.text, metadata=UNSET if given.metadata is None else given.metadata)
    memory_id = uuid_of(given.memory_id, "memory")
    return memory_output(services.memories.update(caller, caller.scope, memory_id, edit))


def delete_memory(services: Services, caller: Caller, given: MemoryIdInput) -> DeletedOutput:
    """Delete one memory."""
    services.memories.delete(caller, caller.scope, uuid_of(given.memory_id, "memory"))
    return DeletedOutput(message="The memory was deleted.", deleted=1)


def delete_all_memories(services: Services, caller: Caller, given: Subjects) -> DeletedOutput:
    """Delete the memories of the named subjects. Nothing is filled in here: what is deleted must have been named."""
    count = services.memories.delete_all(caller, caller.scope, checked_names_of(given))
    return DeletedOutput(message=f"{count} memories were deleted.", deleted=count)


def delete_entities(services: Services, caller: Caller, given: Subjects) -> DeletedOutput:
    """Remove one user, agent, app or run with all that belongs to it."""
    named = names_of(given).items()
    if len(named) != 1:
        raise InvalidInput("name one of user_id, agent_id, app_id and run_id; nothing was deleted")
    kind, name = named[0]
    count = services.entities.delete(caller, caller.scope, kind, name)
    return DeletedOutput(message=f"The {kind.value} was deleted with {count} memories.", deleted=count)


def list_entities(services: Services, caller: Caller, given: PageInput) -> EntitiesOutput:
    """List users, agents, apps and runs."""
    page = services.entities.list(caller, caller.scope, page=given.page, size=given.page_size)
    return EntitiesOutput(**page_fields(page), results=[entity_output(entity) for entity in page.items])


def list_events(services: Services, caller: Caller, given: PageInput) -> EventsOutput:
    """List adds and how they went."""
    page = services.events.list(caller, caller.scope, page=given.page, size=given.page_size)
    return EventsOutput(**page_fields(page), results=[event_output(event) for event in page.items])


def get_event_status(services: Services, caller: Caller, given: EventIdInput) -> EventOutput:
    """Tell how one add went."""
    return event_output(services.events.get(caller, caller.scope, uuid_of(given.event_id, "event")))


def get_user_context(services: Services, caller: Caller, given: GetUserContextInput) -> ContextOutput:
    """Search a user's memories and compose what is found for a prompt."""
    identity = identity_of(given.identity)
    asked = Asked(given.user_id, given.query, given.connectors, given.max_tokens, identity)
    context = services.interactions.context(caller, caller.scope, asked)
    return context_output(context, max_tokens=given.max_tokens)


def store_interaction_summary(services: Services, caller: Caller, given: StoreInteractionSummaryInput) -> SummaryOutput:
    """Store a summary as it is, at once."""
    identity = identity_of(given.identity)
    summary = Summary(given.summary, given.channel, given.user_id, given.connector, given.labels or (), identity)
    stored = services.interactions.store(caller, caller.scope, summary)
    return SummaryOutput(
        id=str(stored.memory_id),
        status="already known" if stored.known else "stored",
        event_id=str(stored.event_id),
    )
