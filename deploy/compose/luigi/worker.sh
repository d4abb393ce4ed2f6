#!/bin/sh
# Run a task again and again, as cron would: sh worker.sh FAMILY
set -u
while :; do
  luigi --module pipelines "$1" --at "$(date +%Y%m%dT%H%M%S)" || echo "luigi ended with $?" >&2
  rm -f /tmp/"$1"-* /tmp/ExtractUsers-*
  sleep 20
done
