"""Every public method of every official client, and what it does here: held against the clients and the docs' table."""

from __future__ import annotations

from typing import Final

#: It works as the client documents it.
WORKS: Final = "works"
#: Answered with 501 and a `detail` that says what to do instead.
NOT_OFFERED: Final = "501"
#: Answers that profiles are not enabled, which the client knows how to read.
NOT_ENABLED: Final = "not_enabled"
#: The client itself says that it is not there.
NOT_IN_CLIENT: Final = "the client's own"
#: It is done, and then the client fails over its own telemetry, at Mem0's cloud too.
FAILS_AFTER: Final = "done, then the client fails"
#: A command that concerns Mem0's cloud alone, or nothing but this machine; no call of the service is behind it.
LOCAL: Final = "local"

_MEMORIES: Final = (
    "add",
    "search",
    "get",
    "get_all",
    "update",
    "delete",
    "delete_all",
    "history",
    "users",
    "delete_users",
    "reset",
    "batch_update",
    "batch_delete",
    "create_memory_export",
    "get_memory_export",
    "get_summary",
    "feedback",
    "get_project",
    "update_project",
    "project.get",
    "project.update",
    "get_webhooks",
    "create_webhook",
    "update_webhook",
    "delete_webhook",
)
_OF_THE_INSTALLATION: Final = (
    "project.create",
    "project.delete",
    "project.get_members",
    "project.add_member",
    "project.update_member",
    "project.remove_member",
)
_PROFILES: Final = (
    "get_profile",
    "generate_profile",
    "get_profile_settings",
    "update_profile_settings",
    "sample_profiles",
    "get_profile_job",
)

_PYTHON: Final = (
    dict.fromkeys(_MEMORIES, WORKS) | dict.fromkeys(_OF_THE_INSTALLATION, NOT_OFFERED) | {"chat": NOT_IN_CLIENT}
)
_PYTHON_OLD: Final = _PYTHON | {"feedback": FAILS_AFTER}
#: By version of `mem0ai`; the asynchronous client has the methods of the other.
PYTHON: Final = {
    "2.2.1": _PYTHON | dict.fromkeys(_PROFILES, NOT_ENABLED),
    "1.0.11": _PYTHON_OLD,
    "0.1.118": _PYTHON_OLD,
}


def camel(name: str) -> str:
    """Return a method's name as the TypeScript client writes it."""
    first, *rest = name.split("_")
    return first + "".join(part.capitalize() for part in rest)


#: Those of the TypeScript client, which has no project of its own and no `reset`.
TYPESCRIPT: Final = {
    camel(name): state
    for name, state in PYTHON["2.2.1"].items()
    if "." not in name and name not in ("reset", "chat", "get_summary")
} | {"ping": WORKS, "deleteUser": WORKS}

#: What a status becomes in the Python clients and the TypeScript client.
ERRORS: Final = {
    400: "ValidationError",
    401: "AuthenticationError",
    403: "AuthenticationError",
    404: "MemoryNotFoundError",
    409: "ValidationError",
    413: "MemoryQuotaExceededError",
    429: "RateLimitError",
    501: "MemoryError",
    503: "NetworkError",
}

PROJECT: Final = "/api/v1/orgs/organizations/{org_id}/projects/{project_id}/"
WEBHOOKS: Final = "/api/v1/webhooks/projects/{project_id}/"
_BEHIND: Final = {
    "/v1/feedback/": ("feedback",),
    "/v1/summary/": ("get_summary",),
    "/v1/exports/": ("create_memory_export", "get_memory_export", "createMemoryExport", "getMemoryExport"),
    PROJECT: ("get_project", "update_project", "getProject", "updateProject", "project."),
    WEBHOOKS: ("webhook", "Webhook"),
    "/v2/profiles/settings/": ("profile", "Profile"),
}


def only_served(states: dict[str, str], served: set[str]) -> dict[str, str]:
    """Return the methods whose routes are there."""
    absent = [part for path, parts in _BEHIND.items() if path not in served for part in parts]
    return {name: state for name, state in states.items() if not any(part in name for part in absent)}


#: Those of the command line client.
CLI: Final = dict.fromkeys(
    (
        "add",
        "search",
        "get",
        "list",
        "update",
        "delete",
        "import",
        "status",
        "init",
        "entity list",
        "entity delete",
        "event list",
        "event status",
    ),
    WORKS,
) | dict.fromkeys(
    (
        "identify",
        "whoami",
        "agent-rush add",
        "agent-rush search",
        "config show",
        "config get",
        "config set",
        "help",
        "version",
    ),
    LOCAL,
)
