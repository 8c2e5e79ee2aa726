#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# make install and make uninstall. The Makefile sets DESTDIR, LIBEXECDIR, SYSCONFDIR, DATADIR and FORCE.
#
#   install.sh install MODULE
#   install.sh uninstall
#
# DATADIR/mod_bosh/bosh.conf is a copy of the configuration as it came: what is in mods-available is the
# administrator's as soon as it differs from that copy, and then neither overwritten nor removed.

set -eu

ROOT=$(cd "$(dirname "$0")/../.." && pwd -P)
SHARE=$DESTDIR$DATADIR/mod_bosh
MODS=$SYSCONFDIR/mods-available
SO=$DESTDIR$LIBEXECDIR/mod_bosh.so

put() {
    install -m 644 "$1" "$2"
    echo "  $2"
}

take() {
    [ -e "$1" ] || return 0
    rm -f "$1"
    echo "  removed $1"
}

put_conf() {
    conf=$DESTDIR$MODS/bosh.conf
    new=$ROOT/conf/bosh.conf
    install -d "$DESTDIR$MODS"
    # The same line, with the directory of this httpd.
    sed "s|^\(LoadModule[[:space:]]*bosh_module[[:space:]]*\).*|\1$LIBEXECDIR/mod_bosh.so|" \
        "$ROOT/conf/bosh.load" >"$DESTDIR$MODS/bosh.load"
    chmod 644 "$DESTDIR$MODS/bosh.load"
    echo "  $DESTDIR$MODS/bosh.load"
    if [ ! -e "$conf" ] || cmp -s "$conf" "$new" || cmp -s "$conf" "$SHARE/bosh.conf"; then
        put "$new" "$conf"
        take "$conf.dist"
    else
        put "$new" "$conf.dist"
        echo "  (kept your $conf; the new one is beside it)"
    fi
}

put_page() {
    if [ ! -f "$ROOT/build/web/index.html" ]; then
        echo "  (not the web page: it is made by 'make web', which needs npm)"
        return
    fi
    (cd "$ROOT/build/web" && find . -type f | sed 's|^\./||') | while read -r file; do
        install -d "$(dirname "$SHARE/web/$file")"
        install -m 644 "$ROOT/build/web/$file" "$SHARE/web/$file"
    done
    echo "  $SHARE/web/"
    (cd "$ROOT/build/web" && find . -type f | sed 's|^\./||' | sort) >"$SHARE/web.files"
}

do_install() {
    install -d "$DESTDIR$LIBEXECDIR" "$SHARE"
    put "$1" "$SO"
    if [ -d "$MODS" ] || [ -d "$DESTDIR$MODS" ] || [ -n "$FORCE" ]; then
        put_conf
        next="Now: a2enmod bosh, edit $MODS/bosh.conf, restart httpd."
    else
        next="Now: put  LoadModule bosh_module $LIBEXECDIR/mod_bosh.so  into httpd's configuration;
$DATADIR/mod_bosh/bosh.conf shows the directives. Then restart httpd."
    fi
    put "$ROOT/conf/bosh.conf" "$SHARE/bosh.conf"
    put "$ROOT/conf/tuning.conf" "$SHARE/tuning.conf"
    put_page
    [ -n "$DESTDIR" ] || echo "$next"
}

do_uninstall() {
    if [ -z "$FORCE" ] && [ -L "$DESTDIR$SYSCONFDIR/mods-enabled/bosh.load" ]; then
        echo "make uninstall: the module is enabled, and httpd would not start without it." >&2
        echo "First: a2dismod bosh, restart httpd. (FORCE=1 removes the module all the same.)" >&2
        exit 1
    fi
    take "$SO"
    take "$DESTDIR$MODS/bosh.load"
    take "$DESTDIR$MODS/bosh.conf.dist"
    if [ -e "$DESTDIR$MODS/bosh.conf" ]; then
        if cmp -s "$DESTDIR$MODS/bosh.conf" "$SHARE/bosh.conf"; then
            take "$DESTDIR$MODS/bosh.conf"
        else
            echo "  (kept $DESTDIR$MODS/bosh.conf: it was edited)"
        fi
    fi
    take "$SHARE/bosh.conf"
    take "$SHARE/tuning.conf"
    if [ -f "$SHARE/web.files" ]; then
        while read -r file; do
            rm -f "$SHARE/web/$file"
        done <"$SHARE/web.files"
        rm -f "$SHARE/web.files"
        find "$SHARE/web" -depth -type d -empty -delete
        echo "  removed the page in $SHARE/web"
    fi
    [ ! -d "$SHARE" ] || rmdir --ignore-fail-on-non-empty "$SHARE"
}

case $1 in
install) do_install "$2" ;;
uninstall) do_uninstall ;;
esac
