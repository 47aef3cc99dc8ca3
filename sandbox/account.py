"""The user that Postgres runs as when this process is root, which Postgres refuses.

An ordinary user owns the data folder. If it cannot reach the binaries or the data (a clone under /root, a 0700 temp
folder), the server gets one capability instead of wider folder permissions: `dac_read_search`, or `dac_override` in
containers without it. Both need the `no_setuid_fixup` bit, because Postgres calls access(2), which otherwise ignores
the capabilities of a user other than root.
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
    """An unprivileged user, and the capability it needs to reach its files."""

    uid: int
    gid: int
    capability: str | None = None

    def command(self, arguments: list[str]) -> list[str]:
        """Returns the command line that runs `arguments` as this user, with the same process id."""
        become = ["setpriv", f"--reuid={self.uid}", f"--regid={self.gid}", "--clear-groups"]
        if self.capability:
            become += [
                f"--inh-caps=-all,+{self.capability}",
                f"--ambient-caps=+{self.capability}",
                "--securebits=+no_setuid_fixup",
            ]
        return [*become, "--", *arguments]

    def own(self, path: Path) -> None:
        """Makes this user the owner of a file or folder."""
        os.chown(path, self.uid, self.gid)


def choose(binary: Path, folder: Path) -> Account | None:
    """Returns the account to run `binary` on `folder` with, and gives it the folder; None if not running as root.

    Tries each capability, since only the kernel can judge modes, ACLs and a container's bounding set.
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
