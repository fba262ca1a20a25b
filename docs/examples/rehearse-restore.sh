#!/bin/sh
# Backs an installation up, restores it elsewhere and verifies it there. Usage: rehearse-restore.sh DATA_DIR NEW_FOLDER
set -eu
data_dir=$1
place=$2
# The command of this checkout where there is one, else the one on the path; MEMVAULT names another.
command=$(dirname "$0")/../../.venv/bin/memvault
[ -x "$command" ] || command=memvault
memvault=${MEMVAULT:-$command}

if [ ! -d "$data_dir/postgres" ]; then
  echo "$data_dir: holds no installation with the embedded PostgreSQL" >&2
  exit 2
fi
umask 077
# It is removed at the end: one that is there is refused, since what is in it is not this script's.
mkdir "$place"
trap 'rm -rf "$place"' EXIT
chmod 711 "$place"
"$memvault" backup --data-dir "$data_dir" --out "$place/backup"
# What the restored one signs must reach no place of the running one, which would take it for its own.
export MEMVAULT_AUDIT__CHECKPOINT_FOLDER="$place/checkpoints" MEMVAULT_AUDIT__S3__BUCKET=
"$memvault" restore "$place/backup" --data-dir "$place/restored"
"$memvault" audit checkpoint --data-dir "$place/restored"
"$memvault" audit verify --data-dir "$place/restored"
"$memvault" doctor --data-dir "$place/restored"
echo "the backup can be restored"
