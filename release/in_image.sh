#!/bin/sh
# Steps of the Containerfile that need the network. The secret `certificates` is a file of certificate
# authorities, for those whose way out goes through a proxy with one of its own.
set -eu
certificates=/run/certificates
if [ -s "$certificates" ]; then
  export SSL_CERT_FILE="$certificates" PIP_CERT="$certificates"
fi
uv=/opt/uv/bin/uv
compile() { python3 -m compileall -q -j 0 --invalidation-mode unchecked-hash "$@"; }

case "$1" in
  uv)
    python3 -m venv /opt/uv
    /opt/uv/bin/pip install --quiet --no-cache-dir --disable-pip-version-check 'uv>=0.9'
    ;;
  packages)
    # Whatever extras there are, except what only training code needs.
    "$uv" sync --quiet --locked --no-default-groups --all-extras --no-extra torch --no-install-project --no-cache
    # What no program of ours runs: tests, headers and static libraries that wheels bring along.
    cd /opt/cacheop
    find . -type d \( -name tests -o -name test -o -name include \) -path '*/site-packages/*' -prune -exec rm -rf {} +
    find . \( -name '*.a' -o -name '*.pyx' -o -name '*.pxd' -o -name '*.h' \) -delete
    compile lib
    ;;
  code)
    "$uv" sync --quiet --locked --no-default-groups --all-extras --no-extra torch --no-editable --inexact --no-cache
    # Only what is ours: the packages are a layer that most commits share.
    cd /opt/cacheop
    compile lib/python3*/site-packages/cacheop lib/python3*/site-packages/cache_worker
    mkdir -p /code/opt/cacheop
    cp -a --parents bin/cacheop lib/python3*/site-packages/cacheop* lib/python3*/site-packages/cache_worker /code/opt/cacheop
    ;;
  *) echo "in_image.sh: no step $1" >&2; exit 2 ;;
esac
