"""Checkpoints in S3-compatible object storage, one object each, locked (WORM) from its writing on."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from importlib import import_module
from typing import Any, Final

from service import clock
from service.audit.checkpoints import BadDocument, Checkpoint, parse_line
from service.audit.sinks import SinkUnavailable
from service.errors import ConfigurationError
from service.settings import AuditS3

_DIGITS: Final = 12
_CONNECT_SECONDS: Final = 5
_READ_SECONDS: Final = 15
#: The answers to a put on condition that nothing is there: something is, or the store knows no conditions.
_THERE_OR_CANNOT_TELL: Final = frozenset({"PreconditionFailed", "412", "NotImplemented", "501"})
_NOT_THERE: Final = "NoSuchKey"


class S3Sink:
    """Puts objects into a bucket with object lock, in compliance mode: nobody can remove them before their time."""

    readable = True

    def __init__(self, settings: AuditS3) -> None:
        """Make the client; nothing is called yet.

        Raises:
            ConfigurationError: when the SDK is not installed.
        """
        try:
            boto3, config = import_module("boto3"), import_module("botocore.config")
            self._errors: Any = import_module("botocore.exceptions")
        except ImportError:
            raise ConfigurationError(
                "audit.s3.bucket: boto3 is not installed here. Where pip installed memvault: pip install "
                "'memvault[s3]'. A checkout (`make run`) and the image have it from config/requirements/runtime.txt: "
                "install that file again, or build the image anew"
            ) from None
        access, secret = settings.access_key_id, settings.secret_access_key
        self._bucket = settings.bucket
        self._prefix = settings.prefix
        self._retained = timedelta(days=settings.retain_days)
        self._client: Any = boto3.client(
            "s3",
            endpoint_url=settings.endpoint,
            region_name=settings.region,
            aws_access_key_id=access.get_secret_value() if access else None,
            aws_secret_access_key=secret.get_secret_value() if secret else None,
            config=config.Config(
                connect_timeout=_CONNECT_SECONDS, read_timeout=_READ_SECONDS, retries={"max_attempts": 2}
            ),
        )

    @property
    def name(self) -> str:
        """The place itself: another bucket begins with the first checkpoint."""
        return f"s3://{self._bucket}/{self._prefix}"

    def deliver(self, checkpoints: Sequence[Checkpoint]) -> None:
        """Put one object for each checkpoint that is not there yet."""
        for checkpoint in checkpoints:
            try:
                self._put(checkpoint, IfNoneMatch="*")
            except self._failures() as error:
                if _code(error) not in _THERE_OR_CANNOT_TELL:
                    raise self._unavailable(error) from None
                self._put_unless_there(checkpoint)

    def is_empty(self) -> bool:
        """Return False: a bucket is there or is not."""
        return False

    def newest(self, *, beyond: int) -> Checkpoint | None:
        """Return the checkpoint with the highest number above `beyond`."""
        last = None
        try:
            pages = self._client.get_paginator("list_objects_v2").paginate(
                Bucket=self._bucket, Prefix=self._prefix, StartAfter=self._key(beyond)
            )
            for page in pages:
                for entry in page.get("Contents", ()):
                    last = entry["Key"]
            if last is None:
                return None
            return self._get(last)
        except self._failures() as error:
            raise self._unavailable(error) from None

    def _put(self, checkpoint: Checkpoint, **condition: str) -> None:
        self._client.put_object(
            Bucket=self._bucket,
            Key=self._key(checkpoint.body.number),
            Body=checkpoint.line() + b"\n",
            ContentType="application/json",
            ChecksumAlgorithm="SHA256",
            ObjectLockMode="COMPLIANCE",
            ObjectLockRetainUntilDate=clock.now() + self._retained,
            **condition,
        )

    def _put_unless_there(self, checkpoint: Checkpoint) -> None:
        """Compare with what has the number already; put it where nothing has and the store knows no conditions."""
        key = self._key(checkpoint.body.number)
        try:
            there = self._get(key)
        except self._failures() as error:
            if _code(error) != _NOT_THERE:
                raise self._unavailable(error) from None
            there = None
        if there is not None and there.hash != checkpoint.hash:
            raise SinkUnavailable(f"audit.s3: the object {key} is another checkpoint of this number, and stays")
        if there is None:
            try:
                self._put(checkpoint)
            except self._failures() as error:
                raise self._unavailable(error) from None

    def _get(self, key: str) -> Checkpoint:
        content = self._client.get_object(Bucket=self._bucket, Key=key)["Body"].read()
        try:
            return parse_line(content)
        except BadDocument:
            raise SinkUnavailable(f"audit.s3: the object {key} is no checkpoint") from None

    def _key(self, number: int) -> str:
        return f"{self._prefix}{number:0{_DIGITS}}.json"

    def _failures(self) -> tuple[type[Exception], ...]:
        return self._errors.BotoCoreError, self._errors.ClientError

    def _unavailable(self, error: Exception) -> SinkUnavailable:
        return SinkUnavailable(
            f"audit.s3: the bucket {self._bucket} does not take or give checkpoints ({_code(error)})"
        )


def _code(error: Exception) -> str:
    code = getattr(error, "response", {}).get("Error", {}).get("Code")
    return str(code or type(error).__name__)
