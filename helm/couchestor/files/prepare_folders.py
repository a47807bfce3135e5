"""Gives folders to the daemon's user: UID GID FOLDER... Makes those missing on a medium."""

import os
import sys

uid, gid = int(sys.argv[1]), int(sys.argv[2])
for path in sys.argv[3:]:
    mount_point = os.path.dirname(path)
    try:
        if not os.path.isdir(path):
            # On the machine's own disk it would be taken for the medium, and filled.
            if not os.path.ismount(mount_point):
                raise OSError(0, f"nothing is mounted on {mount_point}")
            os.mkdir(path, 0o700)
        found = os.stat(path)
        if (found.st_uid, found.st_gid) != (uid, gid):
            os.chown(path, uid, gid)
            print(f"{path} belongs to {uid}:{gid} now")
    except OSError as exc:
        print(f"{path} is left out: {exc.strerror}; look at it on the machine", file=sys.stderr)
