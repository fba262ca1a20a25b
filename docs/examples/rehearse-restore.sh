#!/bin/sh
# Backs an installation up, restores it elsewhere and verifies it there. Usage: rehearse-restore.sh DATA_DIR NEW_FOLDER
set -eu
data_dir=$1
place=$2
memvault=${MEMVAULT:-memvault}

umask 077
mkdir -p "$place"
chmod 711 "$place"
trap 'rm -rf "$place"' EXIT
"$memvault" backup --data-dir "$data_dir" --out "$place/backup"
"$memvault" restore "$place/backup" --data-dir "$place/restored"
"$memvault" audit checkpoint --data-dir "$place/restored"
"$memvault" audit verify --data-dir "$place/restored"
"$memvault" doctor --data-dir "$place/restored"
echo "the backup can be restored"
