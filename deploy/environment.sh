# Sourced by the Makefile: where the virtual environment and the data are, and how to make them.
#
# As root the services run as an unprivileged account, which must be able to read the programs
# and to reach the data: a clone below a 0700 home will not do, so both then live elsewhere.

nexus_reachable() { # is every folder of this path open to other accounts?
  local dir="$1"
  while [ "$dir" != "/" ]; do
    [ -e "$dir" ] && [ $((0$(stat -c %a "$dir") & 1)) -eq 0 ] && return 1
    dir=$(dirname "$dir")
  done
  return 0
}

nexus_tag=$(basename "$PWD")-$(printf %s "$PWD" | sha256sum | cut -c1-8)
if [ "$(id -u)" = 0 ] && ! nexus_reachable "$PWD"; then
  : "${APP_VENV:=/opt/nexus/$nexus_tag}"
  : "${NEXUS_DATA:=/var/lib/nexus/$nexus_tag}"
else
  : "${APP_VENV:=$PWD/.venv}"
  : "${NEXUS_DATA:=$PWD/nexus-data}"
fi
export APP_VENV NEXUS_DATA PIP_DISABLE_PIP_VERSION_CHECK=1

nexus_python() { # the newest fitting Python; as root one that other accounts can execute
  local found path
  for found in /usr/bin/python3.13 /usr/bin/python3.12 /usr/bin/python3.11 python3.13 python3.12 python3.11 python3; do
    path=$(command -v "$found") || continue
    path=$(readlink -f "$path")
    "$path" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || continue
    [ "$(id -u)" = 0 ] && ! nexus_reachable "$path" && continue
    echo "$path"
    return 0
  done
  echo "Nexus needs Python 3.11 or newer: apt-get install python3 python3-venv" >&2
  return 1
}

nexus_scanner() { # ClamAV's programs and bubblewrap: installed where we may, named where not
  local missing="" sudo="" stamp="$APP_VENV/.nexus-scanner-tried"
  PATH=$PATH:/usr/sbin command -v clamd >/dev/null || missing="clamav-daemon"
  command -v clamscan >/dev/null || missing="$missing clamav"
  command -v bwrap >/dev/null || missing="$missing bubblewrap"
  missing="${missing# }"
  [ -z "$missing" ] && return 0
  if command -v apt-get >/dev/null && [ -z "$(find "$stamp" -mtime -1 2>/dev/null)" ]; then
    [ "$(id -u)" = 0 ] || sudo="sudo -n"
    if [ -z "$sudo" ] || $sudo true 2>/dev/null; then
      touch "$stamp" # one try a day: without a network each takes its time
      echo "Installing the virus scanner and the sandbox (once): $missing" >&2
      # The node runs a scanner of its own. Offline, systemctl does not start Debian's services, and
      # nothing of the machine is changed for that.
      nexus_apt() { $sudo env DEBIAN_FRONTEND=noninteractive SYSTEMD_OFFLINE=1 timeout 300 \
        apt-get -o DPkg::Lock::Timeout=30 -o Acquire::Retries=0 "$@" </dev/null >/dev/null 2>&1; }
      # shellcheck disable=SC2086
      nexus_apt install -y -qq --no-install-recommends $missing ||
        { nexus_apt update -qq; nexus_apt install -y -qq --no-install-recommends $missing; } &&
        { rm -f "$stamp"; return 0; }
    fi
  fi
  echo "Files stay held, or are checked with less around them, until this is there; as root:" >&2
  echo "  apt-get install --no-install-recommends $missing" >&2
  return 0
}

nexus_setup() {
  local python
  if [ ! -x "$APP_VENV/bin/python" ]; then
    python=$(nexus_python) || return 1
    if ! "$python" -c 'import ensurepip' 2>/dev/null; then
      echo "Installing the one system package that is missing: python3-venv" >&2
      local sudo=; [ "$(id -u)" = 0 ] || sudo=sudo
      $sudo apt-get update -qq && $sudo env DEBIAN_FRONTEND=noninteractive \
        apt-get install -y -qq python3-venv >/dev/null || {
        echo "Could not install python3-venv; as root: apt-get install python3-venv" >&2; return 1; }
    fi
    mkdir -p "$(dirname "$APP_VENV")" && "$python" -m venv "$APP_VENV" || return 1
  fi
  nexus_install requirements.lock run -r requirements.lock || return 1
  nexus_scanner
  local sources
  sources=$(find appliance connectors quarantine pyproject.toml -type f -not -name '*.pyc' -print0 | sort -z | xargs -0 sha256sum | sha256sum)
  if [ "$(cat "$APP_VENV/.nexus-sources" 2>/dev/null)" != "$sources" ]; then
    "$APP_VENV/bin/pip" install --quiet --no-deps --force-reinstall . || return 1
    rm -rf build ./*.egg-info
    printf %s "$sources" >"$APP_VENV/.nexus-sources"
  fi
}

nexus_setup_dev() { nexus_install requirements-dev.lock dev -r requirements-dev.lock; }

nexus_install() { # install once per content of the lock file
  local stamp="$APP_VENV/.nexus-$2" sum
  sum=$(sha256sum <"$1")
  [ "$(cat "$stamp" 2>/dev/null)" = "$sum" ] && return 0
  echo "Installing the libraries of $1 (once)…" >&2
  shift 2
  "$APP_VENV/bin/pip" install --quiet "$@" 2> >(grep -v "^WARNING: Location" >&2) && printf %s "$sum" >"$stamp"
}
