#!/bin/sh
# Makes the machine that test_powercut_vm.py cuts the power of: Debian bookworm with systemd, the node as a service.
#
#   build.sh FOLDER CHECKOUT PYTHON
#
# Leaves FOLDER/root.img (ext4, raw), FOLDER/vmlinuz and FOLDER/initrd. Needs root, mmdebstrap, mke2fs. Each step leaves
# a mark, so that a run that was cut off goes on where it stopped; the last step is repeated when the agent, its unit or
# this folder has changed. Mirror and pip settings are those of this machine: nothing is named here.
set -eu

folder=$1
checkout=$2
python=$3
here=$(dirname "$(readlink -f "$0")")
. "$here/lib.sh"

if step "base" "unpacking Debian bookworm with systemd and a kernel (about 60 s)"; then
  unpack_debian bookworm systemd-sysv,udev,systemd-timesyncd,linux-image-cloud-amd64,initramfs-tools,e2fsprogs,python3-venv
  done_ base
fi

if step pip "installing the agent's dependencies (about 30 s)"; then
  "$python" - "$checkout" >"$folder/requirements.txt" <<'PY'
import pathlib, re, sys, tomllib
checkout = pathlib.Path(sys.argv[1])
wanted = tomllib.loads((checkout / "pyproject.toml").read_text())["project"]["dependencies"]
print("\n".join(wanted))
PY
  # The versions of the lock file, without its markers: this is one machine with one Python.
  sed -n 's/^\([A-Za-z0-9_.-]*==[A-Za-z0-9_.+!-]*\).*/\1/p' "$checkout/requirements.lock" | sort -u -t= -k1,1 >"$folder/constraints.txt"
  rm -rf "$root/opt/wheels"
  thrice "$python" -m pip download --quiet --disable-pip-version-check --only-binary=:all: --python-version 3.11 \
    --platform manylinux_2_28_x86_64 --platform manylinux_2_27_x86_64 --platform manylinux_2_17_x86_64 --platform manylinux2014_x86_64 \
    --dest "$root/opt/wheels" -c "$folder/constraints.txt" -r "$folder/requirements.txt"
  cp "$folder/requirements.txt" "$root/opt/wheels/"
  in_root python3 -m venv /opt/wardpost
  in_root /opt/wardpost/bin/pip install --quiet --disable-pip-version-check --no-index --find-links /opt/wheels -r /opt/wheels/requirements.txt
  rm -rf "$root/opt/wheels"
  done_ pip
fi

# What changes from day to day: the agent as a wheel, its unit, the settings of this machine.
footage=${WARDPOST_CACHE:-$checkout/.cache/assets}/bikes.mp4
now=$(cd "$checkout" && find agent deploy/wardpost-node.service tests/system/vm/build.sh tests/system/vm/lib.sh tests/system/vm/files tests/system/powercut pyproject.toml "$footage" -type f ! -name '*.pyc' -print0 | sort -z | xargs -0 sha256sum | sha256sum | cut -c 1-16)
[ "$(cat "$marks/image" 2>/dev/null)" = "$now" ] && { echo "$(date +%T) ready: $folder/root.img is up to date"; exit 0; }
echo "$(date +%T) installing the agent and making root.img (about 25 s)"
rm -rf "$folder/source" "$folder/wheel" "$marks/image"
mkdir -p "$folder/source" "$folder/wheel"
cp -r "$checkout/agent" "$checkout/pyproject.toml" "$checkout/README.md" "$checkout/LICENSE" "$folder/source/"
"$python" -m pip wheel --quiet --disable-pip-version-check --no-deps --no-build-isolation --wheel-dir "$folder/wheel" "$folder/source"
rm -rf "$root/opt/wheel" && cp -r "$folder/wheel" "$root/opt/wheel"
in_root sh -c '/opt/wardpost/bin/pip install --quiet --disable-pip-version-check --no-index --no-deps --force-reinstall /opt/wheel/*.whl'
rm -rf "$root/opt/wheel" "$folder/source" "$folder/wheel"
in_root /opt/wardpost/bin/python -m compileall -q /opt/wardpost/lib >/dev/null || true

in_root sh -c 'getent group gpio >/dev/null || groupadd --system gpio; id wardpost >/dev/null 2>&1 || useradd --system --home-dir /var/lib/wardpost --shell /usr/sbin/nologin wardpost'
rm -rf "$root/usr/local/lib/wardpost" "$root"/etc/systemd/system/wardpost-*
install -D -m 644 "$checkout/deploy/wardpost-node.service" "$root/etc/systemd/system/wardpost-node.service"
cp -r "$here/files/." "$root/"
mkdir -p "$root/usr/local/lib/wardpost/tests/system/powercut"
cp "$here"/../powercut/*.py "$root/usr/local/lib/wardpost/tests/system/powercut/"
install -D -m 644 "$footage" "$root/usr/share/wardpost/street.mp4"
mkdir -p "$root/var/lib/wardpost"
echo wardpost-test >"$root/etc/hostname"
units enable wardpost-node.service wardpost-settings.service systemd-networkd.service
mask_idle_units
tidy_root

rm -f "$folder/root.img"
truncate -s 2G "$folder/root.img"
mke2fs -q -t ext4 -b 4096 -L wardpost-root -E root_owner=0:0,lazy_itable_init=0,lazy_journal_init=0 -d "$root" "$folder/root.img"
mkdir -p "$marks" && echo "$now" >"$marks/image"
echo "$(date +%T) ready: $folder/root.img"
