#!/bin/sh
# Gives `agent` the directories of the image, and settings from variables. Arguments that follow are stronger.
#
#   CONSUL_LOCAL_CONFIG      a JSON or HCL document, written into the configuration directory
#   CONSUL_BIND_INTERFACE    interface whose address the cluster's listeners take
#   CONSUL_CLIENT_INTERFACE  interface whose address HTTP and DNS take
#   CONSUL_DATA_DIR, CONSUL_CONFIG_DIR   instead of /consul/data and /consul/config
set -eu

data=${CONSUL_DATA_DIR:-/consul/data}
config=${CONSUL_CONFIG_DIR:-/consul/config}

# First IPv4 address of an interface.
address_of() {
    ip -o -4 addr show "$1" 2>/dev/null | awk '{ split($4, a, "/"); print a[1]; exit }'
}

# `docker run IMAGE -server ...` means `agent -server ...`.
case "${1:-}" in
    -*) set -- agent "$@" ;;
esac

if [ "${1:-}" = agent ]; then
    shift
    if [ -n "${CONSUL_LOCAL_CONFIG:-}" ]; then
        printf '%s\n' "$CONSUL_LOCAL_CONFIG" > "$config/local.json"
    fi
    for pair in "bind:${CONSUL_BIND_INTERFACE:-}" "client:${CONSUL_CLIENT_INTERFACE:-}"; do
        interface=${pair#*:}
        [ -n "$interface" ] || continue
        address=$(address_of "$interface")
        if [ -z "$address" ]; then
            echo "the interface $interface has no IPv4 address" >&2
            exit 1
        fi
        set -- "-${pair%%:*}=$address" "$@"
    done
    exec proconsul agent "-data-dir=$data" "-config-dir=$config" "$@"
fi

# Another command of the program, or any other program.
case "${1:-}" in
    consul|proconsul|sh|bash|/*) exec "$@" ;;
    *) exec proconsul "$@" ;;
esac
