/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What streams say in the log. Called by the other files of the loop, on its thread.
 *
 * Invariant: a line names a stream by slot and serial; session ids, payload and passwords never appear.
 */
#include "bosh_stream.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "bosh_dial.h"
#include "bosh_secure.h"

static const char *const phase_names[] = {"none", "connect", "header", "features",
                                          "open", "closing", "closed"};

static const char *phase_name(const bosh_stream_t *st)
{
    if (bosh_secure_step(st) != NULL) {
        return st->secure == BOSH_SECURE_SHAKE ? "tls" : "starttls";
    }
    if (st->phase == BOSH_LINK_CONNECT) {
        return bosh_dial_step(st);
    }
    return phase_names[st->phase];
}

static void emit(bosh_streams_t *ss, bosh_log_t level, const char *line)
{
    if (ss->cfg->log != NULL) {
        ss->cfg->log(ss->cfg->log_ctx, level, line);
    }
}

static void name_stream(const bosh_stream_t *st, char *dst, size_t size)
{
    char addr[160] = "";

    if (st->target == NULL) {
        snprintf(dst, size, "[s%u.%u %s]", st->index, st->serial, phase_name(st));
        return;
    }
    bosh_dial_describe(st, addr, sizeof(addr));
    snprintf(dst, size, "[s%u.%u %s] %s at %s", st->index, st->serial, phase_name(st),
             st->dial != NULL ? bosh_dial_domain(st) : st->target->domain, addr);
}

void bosh_stream_log(bosh_streams_t *ss, const bosh_stream_t *st, bosh_log_t level, const char *fmt,
                     ...)
{
    char name[480], line[800];
    int n;
    va_list ap;

    name_stream(st, name, sizeof(name));
    n = snprintf(line, sizeof(line), "%s: ", name);
    if (n > 0 && (size_t)n < sizeof(line)) {
        va_start(ap, fmt);
        vsnprintf(line + n, sizeof(line) - (size_t)n, fmt, ap);
        va_end(ap);
    }
    emit(ss, level, line);
}

/* A stream that never opened is the administrator's business, but not a thousand times a minute. */
void bosh_stream_complain(bosh_streams_t *ss, const bosh_stream_t *st, bosh_cond_t cond,
                          const char *reason)
{
    bosh_complaint_t *c =
        &ss->complaints[st->target != NULL ? (size_t)(st->target - ss->cfg->targets)
                                           : ss->cfg->ntargets];

    if (c->last != 0 && ss->now - c->last < BOSH_COMPLAIN_TIME) {
        c->more++;
        /* The domain, too: a line for any domain speaks for many. */
        snprintf(c->text, sizeof(c->text), "%s%s%s", st->dial != NULL ? bosh_dial_domain(st) : "",
                 st->dial != NULL ? ": " : "", reason);
        bosh_stream_log(ss, st, BOSH_LOG_DEBUG, "%s", reason);
        return;
    }
    c->last = ss->now;
    bosh_stream_log(ss, st, BOSH_LOG_WARNING,
                    "BH201: no stream to the XMPP server: %s (its sessions end with "
                    "%s; check that the server runs and the BoshUpstream line)",
                    reason, cond != BOSH_COND_NONE ? bosh_body_condition(cond) : "no condition");
}

void bosh_streams_complaints(bosh_streams_t *ss)
{
    char line[800];

    for (size_t i = 0; i <= ss->cfg->ntargets; i++) {
        bosh_complaint_t *c = &ss->complaints[i];
        if (c->more > 0 && ss->now - c->last >= BOSH_COMPLAIN_TIME) {
            snprintf(line, sizeof(line),
                     "BH202: %s: %u more streams failed since, the last one: %s",
                     i < ss->cfg->ntargets ? ss->cfg->targets[i].domain : "unknown upstream",
                     c->more, c->text);
            emit(ss, BOSH_LOG_WARNING, line);
            c->more = 0;
            c->last = ss->now;
        }
    }
}
