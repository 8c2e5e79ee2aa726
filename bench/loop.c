/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The event loop of bosh-load: descriptors, timers (a heap, earliest first), the clock, growing buffers.
 * Everything runs on one thread; an event of a watch that was closed in the same turn is not delivered.
 */
#include "load.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <time.h>
#include <unistd.h>

static int epoll_fd;
static int64_t now;

int64_t now_us(void)
{
    return now;
}

static void look_at_clock(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    now = t.tv_sec * SECOND + t.tv_nsec / 1000;
}

void complain(const char *format, ...)
{
    va_list args;

    fprintf(stderr, "%.6f ", (double)now / SECOND);
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fputc('\n', stderr);
}

uint32_t dice(uint32_t below)
{
    static uint64_t state = UINT64_C(0x9e3779b97f4a7c15);

    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return below > 0 ? (uint32_t)((state >> 20) % below) : 0;
}

void watch_add(watch_t *w, int fd, uint32_t events)
{
    struct epoll_event e = {.events = events, .data.ptr = w};

    w->fd = fd;
    w->events = events;
    if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &e) != 0) {
        perror("epoll_ctl");
        exit(2);
    }
}

void watch_set(watch_t *w, uint32_t events)
{
    struct epoll_event e = {.events = events, .data.ptr = w};

    if (w->events != events) {
        w->events = events;
        epoll_ctl(epoll_fd, EPOLL_CTL_MOD, w->fd, &e);
    }
}

void watch_close(watch_t *w)
{
    if (w->fd >= 0) {
        close(w->fd);
        w->fd = -1;
    }
}

static void **garbage;
static size_t ngarbage, garbage_cap;

void *grown(void *p, size_t size)
{
    p = realloc(p, size);
    if (p == NULL) {
        abort();
    }
    return p;
}

void free_later(void *p)
{
    if (ngarbage == garbage_cap) {
        garbage_cap = garbage_cap * 2 + 64;
        garbage = grown(garbage, garbage_cap * sizeof(*garbage));
    }
    garbage[ngarbage++] = p;
}

void buf_add(buf_t *b, const char *p, size_t n)
{
    if (n == 0) {
        return;
    }
    if (b->n + n > b->cap) {
        b->cap = b->n + n + 64;
        b->p = grown(b->p, b->cap);
    }
    memcpy(b->p + b->n, p, n);
    b->n += n;
}

void buf_say(buf_t *b, const char *format, ...)
{
    char text[1024];
    va_list args;
    int n;

    va_start(args, format);
    n = vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    buf_add(b, text, n < (int)sizeof(text) ? (size_t)n : sizeof(text) - 1);
}

void buf_cut(buf_t *b, size_t n)
{
    if (n >= b->n) {
        b->n = 0;
    } else if (n > 0) {
        memmove(b->p, b->p + n, b->n - n);
        b->n -= n;
    }
}

void buf_free(buf_t *b)
{
    free(b->p);
    memset(b, 0, sizeof(*b));
}

/* ---- timers: a heap, earliest first ---- */

static clock_timer_t **heap; /* from 1 */
static size_t nheap, heap_cap;

static void put_at(clock_timer_t *t, size_t i)
{
    heap[i] = t;
    t->place = i;
}

static void rise(clock_timer_t *t, size_t i)
{
    for (; i > 1 && heap[i / 2]->at > t->at; i /= 2) {
        put_at(heap[i / 2], i);
    }
    put_at(t, i);
}

static void sink_down(clock_timer_t *t, size_t i)
{
    for (size_t c; (c = 2 * i) <= nheap; i = c) {
        c += c < nheap && heap[c + 1]->at < heap[c]->at;
        if (heap[c]->at >= t->at) {
            break;
        }
        put_at(heap[c], i);
    }
    put_at(t, i);
}

void timer_off(clock_timer_t *t)
{
    size_t i = t->place;
    clock_timer_t *last;

    if (i == 0) {
        return;
    }
    t->place = 0;
    last = heap[nheap--];
    if (last != t) {
        sink_down(last, i);
        rise(last, last->place);
    }
}

void timer_set(clock_timer_t *t, int64_t at)
{
    timer_off(t);
    if (nheap + 2 > heap_cap) {
        heap_cap = heap_cap * 2 + 64;
        heap = grown(heap, heap_cap * sizeof(*heap));
    }
    t->at = at;
    rise(t, ++nheap);
}

static void fire_timers(void)
{
    while (nheap > 0 && heap[1]->at <= now) {
        clock_timer_t *t = heap[1];
        timer_off(t);
        t->fire(t);
    }
}

void loop_open(void)
{
    epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    look_at_clock();
}

void loop_turn(void)
{
    struct epoll_event events[256];
    int64_t rest = nheap > 0 ? heap[1]->at - now : SECOND;
    struct timespec t = {0, 0};

    if (rest > 0) {
        t.tv_sec = rest / SECOND;
        t.tv_nsec = rest % SECOND * 1000;
    }
    int n = epoll_pwait2(epoll_fd, events, 256, &t, NULL);
    for (int i = 0; i < n; i++) {
        watch_t *w = events[i].data.ptr;
        if (w->fd >= 0) {
            look_at_clock();
            w->ready(w, events[i].events);
        }
    }
    look_at_clock();
    fire_timers();
    while (ngarbage > 0) {
        free(garbage[--ngarbage]);
    }
}
