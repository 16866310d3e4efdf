# shellcheck shell=bash
# What the commands of this folder share; they source it.

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
export COMPOSE_PROJECT_NAME=${COMPOSE_PROJECT_NAME:-baton}
SUITE=${BATON_SUITE:-bookworm}
export BASE=${BATON_BASE_IMAGE:-baton-base:$SUITE}

say() { printf '%s\n' "$*" >&2; }

fail() {
  say "$*"
  exit 1
}

# Exit code of a command that this machine cannot run at all.
CANNOT_RUN=77

if command -v docker-compose > /dev/null; then
  compose_command=(docker-compose)
else
  compose_command=(docker compose)
fi

compose() { timeout "${COMPOSE_WITHIN:-300}" "${compose_command[@]}" -f "$here/docker-compose.yml" "$@"; }

# The id of a service's container.
container() { compose ps -q "$1"; }

# Makes sure that a Docker engine answers. Where none runs and this is root, one is started;
# `started_engine` is then its process id.
started_engine=
engine() {
  if timeout 20 docker info > /dev/null 2>&1; then return; fi
  if [[ $EUID -ne 0 ]] || ! command -v dockerd > /dev/null; then
    say "no Docker engine answers, and none can be started here"
    exit "$CANNOT_RUN"
  fi
  local log=${TMPDIR:-/tmp}/baton-dockerd.log
  setsid dockerd > "$log" 2>&1 < /dev/null &
  started_engine=$!
  local _
  for _ in $(seq 60); do
    if timeout 5 docker info > /dev/null 2>&1; then
      say "started dockerd (process $started_engine, log $log)"
      return
    fi
    kill -0 "$started_engine" 2> /dev/null || break
    sleep 1
  done
  say "dockerd does not start:"
  tail -n 20 "$log" >&2
  exit "$CANNOT_RUN"
}

# Ends the engine that `engine` started, if it did.
stop_engine() {
  [[ -n $started_engine ]] || return 0
  kill "$started_engine" 2> /dev/null || true
  timeout 30 tail --pid="$started_engine" -f /dev/null || kill -9 "$started_engine" 2> /dev/null || true
  started_engine=
}

# Tries a command until it succeeds: eventually SECONDS WHAT COMMAND…
eventually() {
  local seconds=$1 what=$2
  shift 2
  local end=$((SECONDS + seconds))
  until "$@"; do
    if ((SECONDS >= end)); then
      say "not within $seconds s: $what"
      return 1
    fi
    sleep 0.2
  done
}

# Succeeds when every container runs and those with a health check are healthy.
all_healthy() {
  local states
  states=$(compose ps -q | xargs --no-run-if-empty docker inspect --format \
    '{{.State.Status}} {{if .State.Health}}{{.State.Health.Status}}{{else}}healthy{{end}}') || return 1
  [[ -n $states ]] && ! grep -qvx 'running healthy' <<< "$states"
}
