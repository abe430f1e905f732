#!/bin/sh
# Makes what stands for a stock Raspberry Pi OS (Trixie) on a card: Debian trixie with systemd and cloud-init, which
# takes its seed from the boot partition. A root folder, its kernel and its initial RAM disk; nothing of Wardpost.
#
#   build.sh FOLDER
#
# Leaves FOLDER/root, FOLDER/vmlinuz and FOLDER/initrd; cardvm.py makes the card's image of them. Needs root and
# mmdebstrap. A run that was cut off begins anew.
set -eu

folder=$1
here=$(dirname "$(readlink -f "$0")")
. "$here/../lib.sh"

# python3 without venv and pip, as the smallest stock system has it: the bundle must bring what it needs.
packages=systemd-sysv,udev,dbus,linux-image-cloud-amd64,initramfs-tools,e2fsprogs,dosfstools,python3,cloud-init,netplan.io,iproute2,openssh-server,sudo,tzdata
now=$(cat "$here/build.sh" "$here/../lib.sh" | sha256sum | cut -c 1-16)
[ "$(cat "$marks/base" 2>/dev/null)" = "$now" ] || rm -f "$marks/base"

if step base "unpacking Debian trixie with systemd and cloud-init (about 70 s)"; then
  unpack_debian trixie "$packages"
  # Keys of ssh are made at the first boot: a stock image has none, else all posts would have the same.
  rm -f "$root"/etc/ssh/ssh_host_*
  in_root sh -c 'getent group gpio >/dev/null || groupadd --system gpio'
  units enable systemd-networkd.service
  units disable ssh.service
  mask_idle_units
  # Generators run at every reading of the units, a dozen times in a first boot.
  mkdir -p "$root/etc/systemd/system-generators"
  for name in debug gpt-auto hibernate-resume rc-local run ssh system-update sysv tpm2; do
    ln -sf /dev/null "$root/etc/systemd/system-generators/systemd-$name-generator"
  done
  units mask ldconfig.service systemd-journal-catalog-update.service systemd-update-done.service systemd-binfmt.service
  tidy_root
  mkdir -p "$root/boot/firmware" "$marks"
  rm -rf "$root"/boot/vmlinuz* "$root"/boot/initrd*  # the firmware, here QEMU, has its own copies
  echo "$now" >"$marks/base"
fi
cp -r "$here/files/." "$root/"
echo "$(date +%T) ready: $root"
