/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where a request's file would be: nowhere. Hooks on worker threads, before the handler is known to httpd.
 *
 * Invariant: a request is only taken here when the configuration of its own URI names our handler. Should a later
 * hook find another handler after all (an <If> that asks for the file, say), it finds no file behind this name.
 */
#include "bosh_map.h"

#include <string.h>

#include <ap_expr.h>
#include <apr_strings.h>
#include <http_config.h>
#include <http_core.h>
#include <http_request.h>

#define NOWHERE "bosh:" /* what a file name never begins with */

/* What SetHandler says for this request; the sections of its Location have been merged. */
static const char *wanted_handler(request_rec *r)
{
    const core_dir_config *conf = ap_get_core_module_config(r->per_dir_config);
    const char *err = NULL, *handler;

    if (conf->expr_handler == NULL) {
        return conf->handler;
    }
    handler = ap_expr_str_exec(r, conf->expr_handler, &err);
    return err == NULL ? handler : NULL;
}

/*
 * After the modules that map (mod_alias, mod_rewrite, mod_proxy, ...), whose word counts, before the core with its
 * document root. When somebody has changed the URI, the Location that was merged is that of the former one.
 */
static int translate_name(request_rec *r)
{
    const char *handler;

    if (r->main != NULL || r->proxyreq || r->method_number == M_TRACE ||
        r->uri != r->parsed_uri.path) {
        return DECLINED;
    }
    handler = wanted_handler(r);
    if (handler == NULL || ap_cstr_casecmp(handler, "bosh") != 0) {
        return DECLINED;
    }
    r->filename = apr_pstrcat(r->pool, NOWHERE, r->uri, NULL);
    r->canonical_filename = r->filename;
    return OK;
}

static int map_to_storage(request_rec *r)
{
    return r->filename != NULL && strncmp(r->filename, NOWHERE, sizeof(NOWHERE) - 1) == 0
               ? OK
               : DECLINED;
}

void bosh_map_register(void)
{
    ap_hook_translate_name(translate_name, NULL, NULL, APR_HOOK_LAST);
    ap_hook_map_to_storage(map_to_storage, NULL, NULL, APR_HOOK_MIDDLE);
}
