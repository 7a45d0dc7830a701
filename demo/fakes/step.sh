#!/bin/sh
# Run the script of a step as GitHub does. If it fails, act discards the output that it has not yet read from the
# terminal (https://github.com/nektos/act/blob/09183e4/pkg/container/host_environment.go, `exec`). A terminal holds
# 64 KiB, so after twice as many spaces, act has read everything before them.
bash --noprofile --norc -e -o pipefail "$1" && exit
code=$?
printf '%131072s\n' ''
exit "$code"
