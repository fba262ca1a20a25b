"""Every knob, nested by owner: defaults < `--config` file < files of secrets < environment (`MEMVAULT_…`) < flags."""

from service.settings.base import secure_url
from service.settings.credentials import Oidc
from service.settings.loading import load_settings, setting_names
from service.settings.quotas import Quotas
from service.settings.secrets import MOST_KEY
from service.settings.trail import AUDIT_FLOOR_DAYS, Audit, AuditS3
from service.settings.tree import ENV_PREFIX, MOST_MESSAGES, Fallback, Limits, Llm, Settings
from service.settings.webhooks import Webhooks

__all__ = [
    "AUDIT_FLOOR_DAYS",
    "ENV_PREFIX",
    "MOST_KEY",
    "MOST_MESSAGES",
    "Audit",
    "AuditS3",
    "Fallback",
    "Limits",
    "Llm",
    "Oidc",
    "Quotas",
    "Settings",
    "Webhooks",
    "load_settings",
    "secure_url",
    "setting_names",
]
