"""Whom Postgres runs as when this process is root: it refuses to be root itself.

It becomes an ordinary user that owns the data folder and nothing else. Where that user cannot walk to the
binaries or to the data (a clone under /root, a 0700 temp folder), nobody's folders are opened up: the server
gets one capability instead. `dac_read_search` lifts the checks on walking and reading only; containers that do
not have it usually have `dac_override`. Both need the `no_setuid_fixup` bit, because Postgres asks access(2),
which otherwise forgets the capabilities of a user that is not root.
"""

import os
import pwd
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from sandbox.daemon import ServerUnavailable

USERS = ("postgres", "nobody", "daemon")
CAPABILITIES = (None, "dac_read_search", "dac_override")  # the least first
PROBE = 'cd "$1" && exec "$2" -V'
PROBE_S = 20


@dataclass(frozen=True)
class Account:
    """An unprivileged user, and the capability without which it would not reach its files."""

    uid: int
    gid: int
    capability: str | None = None

    def command(self, arguments: list[str]) -> list[str]:
        """The command line that runs `arguments` as this user; the process id stays the same."""
        become = ["setpriv", f"--reuid={self.uid}", f"--regid={self.gid}", "--clear-groups"]
        if self.capability:
            become += [
                f"--inh-caps=-all,+{self.capability}",
                f"--ambient-caps=+{self.capability}",
                "--securebits=+no_setuid_fixup",
            ]
        return [*become, "--", *arguments]

    def own(self, path: Path) -> None:
        """Hand one file or folder to this user."""
        os.chown(path, self.uid, self.gid)


def choose(binary: Path, folder: Path) -> Account | None:
    """The account to run `binary` on `folder` with, or None where this process is not root.

    The folder becomes the account's. What works is found by trying: modes, ACLs and a container's bounding set
    are the kernel's to judge.
    """
    if os.geteuid() != 0:
        return None
    user = _user()
    if not shutil.which("setpriv"):
        raise ServerUnavailable("Postgres refuses to run as root and there is no setpriv here: use an ordinary user")
    os.chown(folder, user.pw_uid, user.pw_gid)
    for capability in CAPABILITIES:
        account = Account(user.pw_uid, user.pw_gid, capability)
        probe = account.command(["sh", "-c", PROBE, "sh", str(folder), str(binary)])
        if subprocess.run(probe, cwd="/", capture_output=True, timeout=PROBE_S, check=False).returncode == 0:
            return account
    raise ServerUnavailable(
        f"Postgres refuses to run as root, and {user.pw_name} cannot reach {folder}: use an ordinary user"
    )


def _user() -> pwd.struct_passwd:
    for name in USERS:
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    raise ServerUnavailable(f"Postgres refuses to run as root, and there is none of the users {', '.join(USERS)}")
