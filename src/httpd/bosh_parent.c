/* SPDX-License-Identifier: Apache-2.0 */
/*
 * httpd's parent process, as mod_bosh.c and the loop see it.
 *
 * In the parent it owns the timer that cuts a sleep short: the parent sleeps for a second after a graceful
 * restart before it starts the new children, unless a signal wakes it. The handler is in this object, which
 * is unloaded at the next restart: a cleanup of pconf stops the timer first.
 *
 * In a child it owns the name of the pid file. httpd tells its children nothing about a graceful-stop that
 * it does not tell the one that is recycled. But it removes that file just after it has told them, and at no
 * other time while it lives: a restart writes a new one and renames it into its place.
 */
#include "bosh_parent.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <unistd.h>

#include <ap_mpm.h>
#include <http_config.h>
#include <http_core.h>
#include <http_log.h>
#include <mpm_common.h>
#include <scoreboard.h>

APLOG_USE_MODULE(bosh);

/* ---- slots ---- */

/* The slots of which httpd uses one for each child. On worker a new child can always take an old one's: 0. */
static int count_slots(void)
{
    const char *mpm = ap_show_mpm();
    int n = 0;

    if (strcmp(mpm, "worker") != 0) {
        ap_mpm_query(strcmp(mpm, "prefork") == 0 ? AP_MPMQ_MAX_DAEMONS : AP_MPMQ_HARD_LIMIT_DAEMONS,
                     &n);
    }
    return n;
}

static bool is_full(int slots)
{
    for (int i = 0; i < slots; i++) {
        if (ap_get_scoreboard_process(i)->pid == 0) {
            return false;
        }
    }
    return slots > 0;
}

bool bosh_parent_crowded(void)
{
    return is_full(count_slots());
}

/* ---- the parent's nap ---- */

#define NUDGE_MS  60
#define NUDGE_MAX 16

/* Woken when it cannot start a child, httpd complains of it (AH03490). But a slot may be that of a child
 * that has ended already: the first nudge has the parent notice, the second has it act. */
#define NUDGE_FULL 2

static volatile sig_atomic_t nudges, in_vain;
static int places, slots; /* of the scoreboard, and those that count */

static void stop_nudging(void)
{
    static const struct itimerval off;

    (void)setitimer(ITIMER_REAL, &off, NULL);
}

static bool has_begun(void)
{
    for (int i = 0; i < places; i++) {
        const process_score *p = ap_get_scoreboard_process(i);
        if (p->pid != 0 && p->generation == ap_get_scoreboard_global()->running_generation) {
            return true;
        }
    }
    return false;
}

static void nudge(int sig)
{
    (void)sig;
    nudges = nudges + 1;
    in_vain = in_vain + is_full(slots);
    if (nudges >= NUDGE_MAX || in_vain >= NUDGE_FULL || has_begun()) {
        stop_nudging();
    }
}

/* Back to the default, which programs that httpd starts inherit; by way of SIG_IGN, which drops one that is
 * pending. Another module's handler is left alone. */
static void forget_nudge(void)
{
    struct sigaction now;

    if (sigaction(SIGALRM, NULL, &now) == 0 && now.sa_handler == nudge) {
        signal(SIGALRM, SIG_IGN);
        signal(SIGALRM, SIG_DFL);
    }
}

static apr_status_t end_nudging(void *data)
{
    (void)data;
    stop_nudging();
    forget_nudge();
    return APR_SUCCESS;
}

void bosh_parent_start_nudging(apr_pool_t *pconf, server_rec *s)
{
    static const struct itimerval every = {{0, NUDGE_MS * 1000}, {0, NUDGE_MS * 1000}};
    struct sigaction sa, old;

    if (sigaction(SIGALRM, NULL, &old) != 0 ||
        (old.sa_handler != SIG_DFL && old.sa_handler != SIG_IGN)) {
        ap_log_error(APLOG_MARK, APLOG_DEBUG, 0, s,
                     "BoshQuickRestart: another module uses SIGALRM, so it is left alone");
        return;
    }
    memset(&sa, 0, sizeof(sa));
    sa.sa_handler = nudge; /* without SA_RESTART: it is to interrupt */
    sigemptyset(&sa.sa_mask);
    nudges = in_vain = 0;
    slots = count_slots();
    ap_mpm_query(AP_MPMQ_HARD_LIMIT_DAEMONS, &places);
    if (sigaction(SIGALRM, &sa, NULL) == 0) {
        apr_pool_cleanup_register(pconf, NULL, end_nudging, apr_pool_cleanup_null);
        (void)setitimer(ITIMER_REAL, &every, NULL);
    }
}

/* ---- the pid file ---- */

static const char *pid_file; /* NULL: it could not be read when this child started */
static pid_t parent;

bosh_parent_t bosh_parent_look(void)
{
    char text[24];
    ssize_t n;
    int fd;

    if (pid_file == NULL) {
        return BOSH_PARENT_UNKNOWN;
    }
    fd = open(pid_file, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        return errno == ENOENT ? BOSH_PARENT_STOPS : BOSH_PARENT_UNKNOWN;
    }
    n = read(fd, text, sizeof(text) - 1);
    close(fd);
    if (n <= 0) {
        return BOSH_PARENT_UNKNOWN;
    }
    text[n] = '\0';
    return strtol(text, NULL, 10) == (long)parent ? BOSH_PARENT_RUNS : BOSH_PARENT_STOPS;
}

void bosh_parent_child_init(apr_pool_t *pchild)
{
    stop_nudging();
    forget_nudge();
    parent = getppid();
    pid_file = ap_pid_fname != NULL ? ap_server_root_relative(pchild, ap_pid_fname) : NULL;
    if (bosh_parent_look() != BOSH_PARENT_RUNS) {
        pid_file = NULL;
    }
}
