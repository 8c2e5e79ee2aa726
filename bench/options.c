/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The command line of bosh-load: one table says what each option is called and where its value goes.
 */
#include "load.h"

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char usage[] =
    "bosh-load --port N [options]: BOSH clients and the XMPP server behind the connection manager "
    "at that port\n"
    "  --talkers N       sessions with messages both ways     --rate R     messages a second, each "
    "way, of each (1)\n"
    "  --split P         this part of the server's messages is written in two pieces (0)\n"
    "  --listeners N     sessions with messages from the server alone, at that rate\n"
    "  --pingers N       sessions with one XEP-0199 ping after the other\n"
    "  --posters N       no sessions, but one POST after the other on each of N connections\n"
    "  --paced           ... at that rate instead\n"
    "  --idlers N        sessions that only poll              --idle-wait S  (60)   --wait S: of "
    "all others (20)\n"
    "  --guests R        logins a second, which leave again   --silent     guests leave without a "
    "message\n"
    "  --parallel N --logins M   instead: N guests at a time, M in all, then the end\n"
    "  --window S        messages sent so long after a mark are looked at apart (1)\n"
    "  --at-once N       logins in progress at the start (32)    --sink-port N   the sink's (any)\n"
    "  --address A       of the connection manager (127.0.0.1)   --domain NAME   to log in to\n"
    "  --server N        an XMPP server at this port, which the connection manager uses instead of "
    "the sink\n"
    "  --tcp             clients speak XMPP over TCP, without BOSH\n"
    "  --gzip            clients say that they take gzip (and cannot read it: answers below 2 KB "
    "only)\n"
    "  --patience S      for what is under way at the end (30)\n"
    "  --fault lose|double|swap   what the sink does with one message or pong in 50\n"
    "Prints the sink's port, waits for \"go\" on standard input, and then takes commands there:\n"
    "  mark [TIME]  an event happened (CLOCK_MONOTONIC)    report  figures, and a new window; "
    "look: figures\n"
    "  rate R       from now on that many messages a second to each listener; 0: none\n"
    "  pause        pingers and posters send nothing more        resume       until now\n"
    "  poke S       one message to each idle session       stop    finish, report, end\n"
    "Status 1: something was lost, doubled or out of order, or a session ended.\n";

#define O load.opt

static const struct {
    const char *name;
    int *number;
    double *real;
    const char **text;
    bool *flag;
    bool value; /* that the flag gets */
} table[] = {
    {"port", .number = &O.port},
    {"address", .text = &O.address},
    {"domain", .text = &O.domain},
    {"server", .number = &O.server},
    {"sink-port", .number = &load.sink_port},
    {"tcp", .flag = &O.tcp, .value = true},
    {"talkers", .number = &O.talkers},
    {"listeners", .number = &O.listeners},
    {"pingers", .number = &O.pingers},
    {"posters", .number = &O.posters},
    {"paced", .flag = &O.paced, .value = true},
    {"idlers", .number = &O.idlers},
    {"gzip", .flag = &O.gzip, .value = true},
    {"rate", .real = &O.rate},
    {"split", .real = &O.split},
    {"wait", .number = &O.wait},
    {"idle-wait", .number = &O.idle_wait},
    {"guests", .real = &O.guests},
    {"silent", .flag = &O.guests_talk, .value = false},
    {"parallel", .number = &O.parallel},
    {"logins", .number = &O.logins},
    {"window", .real = &O.window},
    {"at-once", .number = &O.at_once},
    {"patience", .number = &O.patience},
    {"fault", .text = &O.fault},
    {"help", .number = NULL},
};

#define ROWS (sizeof(table) / sizeof(table[0]))

static void use(FILE *to, int status)
{
    fputs(usage, to);
    exit(status);
}

static void set_defaults(void)
{
    O.address = "127.0.0.1";
    O.domain = "example.com";
    O.fault = "none";
    O.rate = 1;
    O.guests_talk = true;
    O.wait = 20;
    O.idle_wait = 60;
    O.window = 1;
    O.at_once = 32;
    O.patience = 30;
}

void options_read(int argc, char **argv)
{
    struct option options[ROWS + 1];
    int c;

    memset(options, 0, sizeof(options));
    for (size_t i = 0; i < ROWS; i++) {
        options[i].name = table[i].name;
        options[i].has_arg = table[i].number || table[i].real || table[i].text;
        options[i].val = (int)i + 1;
    }
    set_defaults();
    while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
        if (c < 1 || c > (int)ROWS) {
            use(stderr, 2);
        }
        if (table[c - 1].number != NULL) {
            *table[c - 1].number = atoi(optarg);
        } else if (table[c - 1].real != NULL) {
            *table[c - 1].real = atof(optarg);
        } else if (table[c - 1].text != NULL) {
            *table[c - 1].text = optarg;
        } else if (table[c - 1].flag != NULL) {
            *table[c - 1].flag = table[c - 1].value;
        } else {
            use(stdout, 0);
        }
    }
    if (optind < argc) {
        use(stderr, 2);
    }
}
