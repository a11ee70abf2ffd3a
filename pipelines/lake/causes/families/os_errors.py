"""Lists the errors of the operating system by number; those of a connection are classes of their own."""

from __future__ import annotations

import errno

from pipelines.lake import playbooks
from pipelines.lake.causes import reasons
from pipelines.lake.causes.cause import Kind

_NO_FOLDER = "a path of the lake is a file where a folder is expected, or the other way round"
ERRNO = {
    errno.ENOSPC: (Kind.TRANSIENT, reasons.DISK_FULL, playbooks.DISK),
    errno.EDQUOT: (Kind.TRANSIENT, reasons.DISK_FULL, playbooks.DISK),
    errno.EACCES: (Kind.PERMANENT, reasons.REFUSED, playbooks.PERMISSION),
    errno.EPERM: (Kind.PERMANENT, reasons.REFUSED, playbooks.PERMISSION),
    errno.EROFS: (Kind.PERMANENT, reasons.REFUSED, playbooks.STORE),
    errno.EMFILE: (Kind.PERMANENT, reasons.LIMIT, playbooks.ENVIRONMENT),
    errno.ENFILE: (Kind.PERMANENT, reasons.LIMIT, playbooks.ENVIRONMENT),
    errno.ENAMETOOLONG: (Kind.PERMANENT, reasons.LIMIT, playbooks.ENVIRONMENT),
    errno.EFBIG: (Kind.PERMANENT, reasons.LIMIT, playbooks.ENVIRONMENT),
    errno.ENOLCK: (Kind.PERMANENT, reasons.LIMIT, playbooks.ENVIRONMENT),
    errno.ENOTDIR: (Kind.PERMANENT, _NO_FOLDER, playbooks.PERMISSION),
    errno.EISDIR: (Kind.PERMANENT, _NO_FOLDER, playbooks.PERMISSION),
    errno.ELOOP: (Kind.PERMANENT, _NO_FOLDER, playbooks.PERMISSION),
    errno.EIO: (Kind.PERMANENT, reasons.IO_ERROR, playbooks.STORE),
    errno.ESTALE: (Kind.TRANSIENT, reasons.NO_ANSWER, playbooks.STORE),
    errno.ETIMEDOUT: (Kind.TRANSIENT, reasons.NO_ANSWER, playbooks.STORE),
    errno.EHOSTUNREACH: (Kind.TRANSIENT, reasons.NO_ANSWER, playbooks.STORE),
    errno.ENETUNREACH: (Kind.TRANSIENT, reasons.NO_ANSWER, playbooks.STORE),
    errno.EHOSTDOWN: (Kind.TRANSIENT, reasons.NO_ANSWER, playbooks.STORE),
    errno.ENOTCONN: (Kind.TRANSIENT, reasons.NO_ANSWER, playbooks.STORE),
    errno.ENOMEM: (Kind.PERMANENT, reasons.NO_MEMORY, playbooks.PROCESS),
}
