#!/bin/sh
# Back up the data path of a node, running or not:   backup.sh /var/lib/pynsqd /backup/monday
# The second folder must not be there yet. It may be on another disk or a network's.
#
# The order is what makes it safe. The checkpoint comes first, so the logs are never older than it says; then the state
# is one that a kill of the node could have left. Hard links hold all files of that moment, however long the copy takes.
set -eu
from=$1
to=$2
links=$from/backup.links

mkdir -m 0700 "$links" # fails if another backup runs; one that was killed left it: remove it then
trap 'rm -rf "$links"' EXIT
mkdir -m 0700 "$to"

for file in "$from"/pynsqd.checkpoint.*; do
    [ ! -e "$file" ] || cp -p "$file" "$to"
done
# A file that goes while they are linked has only what was finished: nobody needs it.
if ! LC_ALL=C cp -al "$from/topics" "$links" 2>"$to/errors" &&
    grep -v 'No such file or directory' "$to/errors" >&2; then
    exit 1
fi
rm "$to/errors"
rm -rf "$links/topics/removed" # what the node is about to unlink
[ ! -d "$links/topics" ] || cp -Rp "$links/topics" "$to"
cp -p "$from/pynsqd.meta" "$to"
