#!/bin/sh
# Make the folder of the record for the account that the service runs as. Runs in the second stage of the Dockerfile, and
# as well outside Docker:
#   deploy/image/runtime.sh STATE OWNER
# OWNER is a number: the account needs no entry in /etc/passwd.
set -eu

state=$1
owner=$2

mkdir -p "$state"
chmod 0700 "$state"
if [ "$(id -u)" = 0 ]; then
  chown "$owner:$owner" "$state"
fi
