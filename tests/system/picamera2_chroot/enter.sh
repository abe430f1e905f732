#!/bin/sh
# Runs a command in the folder that setup.sh made, in a mount namespace of its own. Needs root.
#
#   enter.sh FOLDER COMMAND...
#
# The tunables matter: libcamera 0.4.0 leaves a status field uninitialised, and reads luck out of fresh memory.
set -eu
root=$1
shift
exec unshare --mount sh -eu -c '
  root=$1; shift
  mount --bind /dev "$root/dev"
  mount -t proc proc "$root/proc"
  mount -t tmpfs tmpfs "$root/tmp"
  exec chroot "$root" /usr/bin/env -i HOME=/root LANG=C.UTF-8 PATH=/opt/venv/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    GLIBC_TUNABLES=glibc.malloc.perturb=255:glibc.malloc.tcache_count=0 LIBCAMERA_LOG_LEVELS=*:ERROR \
    PYTHONDONTWRITEBYTECODE=1 PYTHONPATH=/opt/wardpost:/opt/wardpost/rig "$@"
' enter "$root" "$@"
