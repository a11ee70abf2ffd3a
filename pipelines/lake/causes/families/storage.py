"""Lists the errors of disks, mounts, object stores and the network between."""

from __future__ import annotations

from pipelines.lake import playbooks
from pipelines.lake.causes import reasons
from pipelines.lake.causes.cause import Kind
from pipelines.lake.causes.families.family import Family

REFUSED = Family(
    Kind.PERMANENT,
    reasons.REFUSED,
    playbooks.STORE,
    (
        r"AccessDeniedException",
        r"AccessControlException",
        r"\w*AuthorizationException",
        r"\w*AuthenticationException",
        r"NoAuthWithAWSException",
        r"CredentialInitializationException",
        r"SSL(?:Handshake|PeerUnverified)Exception|Certificate\w*Exception",
        r"Read-only file system",
    ),
)
IO_ERROR = Family(
    Kind.PERMANENT,
    reasons.IO_ERROR,
    playbooks.STORE,
    (r"Input/output error",),
)
DISK_FULL = Family(
    Kind.TRANSIENT,
    reasons.DISK_FULL,
    playbooks.DISK,
    (
        r"No space left on device",
        r"Disk quota exceeded",
        r"DiskErrorException",
    ),
)
NO_ANSWER = Family(
    Kind.TRANSIENT,
    reasons.NO_ANSWER,
    playbooks.STORE,
    (
        r"AWS(?:ServiceThrottled|Status5\w+|StatusException|ServiceIO|ApiCallTimeout|ClientIO|NoResponse|RemoteFileChanged)\w*",
        r"S3Exception",
        r"Sdk(?:Client)?Exception",
        r"SlowDown|Slow Down|ServiceUnavailable|Service: S3, Status Code: 5\d\d",
        r"SocketTimeoutException",
        r"SocketException",
        r"ConnectException",
        r"UnknownHostException",
        r"NoRouteToHostException",
        r"SSL\w*Exception",
        r"NoHttpResponseException",
        r"HttpChannelEOFException",
        r"Connection reset|[Cc]onnection refused",
        r"Broken pipe",
        r"Stale file handle",
        r"ConnectionError|ConnectionResetError|ConnectionRefusedError|BrokenPipeError|ConnectionAbortedError",
        r"TimeoutError",
        r"ClosedChannelException",
    ),
)
