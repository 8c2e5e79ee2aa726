/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One BOSH session with the server, kept alive by all means: over Strophe.js, without any user interface.
 *
 * Strophe's keepalive option stores jid, sid and the next rid in sessionStorage, and restore() goes on from
 * there. That alone can lose messages: a request that was open when the page went away may have been
 * answered by the server after that, and restore() never asks for that answer again. So this file also
 * keeps every request that has no answer yet ("unanswered") and every stanza that is in no request yet
 * ("outbox"), and resume() repeats those requests under their own rids. The server then gives the stored
 * answer (XEP-0124 section 14.3) and does not process the repeat a second time: each stanza, in both
 * directions, counts exactly once.
 *
 * The same resume() serves a broken network: the first failed request takes the Strophe connection out of
 * service, and resume() is tried with growing pauses. Only when the server does not know the session any
 * more a new login is made, with the password if it is still in memory.
 *
 * Strophe does not offer "repeat this request" in its public interface. What is used beyond it
 * (names that begin with an underscore) is confined to logout(), connected(), askAgain(), detach()
 * and repeatUnanswered(), and package.json pins the exact version.
 */

/* global Strophe, $iq */

export const State = Object.freeze({
    OFFLINE: 'offline',
    CONNECTING: 'connecting',
    ONLINE: 'online',
    RECONNECTING: 'reconnecting',
});

const STROPHE_KEY = 'strophe-bosh-session';
const LOGIN_TIMEOUT = 30000;
const ASK_AGAIN = 100; // ms before the next poll, when one in the middle of a login brought nothing
const MAX_PAUSE = 30; // seconds between two attempts
const STABLE = 10000; // ms online after which the pauses begin anew

/* After these a new login is tried only when the user asks for it. */
const FINAL_CONDITIONS = ['conflict', 'not-authorized', 'host-unknown', 'host-gone'];

export class Session {
    /**
     * @param {string} url     where mod_bosh answers
     * @param {Store} store
     * @param {object} on      callbacks: state(state, detail), stanza(element), started(jid),
     *                         ended(reason, condition), uncertain(ids): sent, but nobody knows whether it
     *                         arrived
     */
    constructor(url, store, on) {
        this.url = url;
        this.store = store;
        this.on = on;
        this.state = State.OFFLINE;
        this.conn = null;
        this.credentials = null; // {jid, password}: memory only
        this.wire = store.get('wire') || emptyWire();
        this.callbacks = new Map(); // iq id -> function
        this.attempt = 0;
        this.timer = null;
        this.failure = null;
        this.everOnline = false;
        this.onlineSince = 0;
        window.addEventListener('online', () => this.retryNow());
        window.addEventListener('pageshow', (event) => event.persisted && this.retryNow());
    }

    get jid() {
        return this.wire.jid;
    }

    /** Is there a session of before the reload? */
    canResume() {
        try {
            const saved = JSON.parse(sessionStorage.getItem(STROPHE_KEY));
            return Boolean(saved && saved.sid && saved.jid && this.wire.jid === saved.jid);
        } catch {
            return false;
        }
    }

    login(jid, password) {
        this.credentials = { jid, password };
        this.attempt = 0;
        this.everOnline = false;
        this.forgetTransport();
        this.connect();
    }

    /** SASL ANONYMOUS: a JID without a name. */
    loginAnonymously(domain) {
        this.login(domain, '');
    }

    /** Goes on with the session of before the reload, or of before the network broke. */
    resume() {
        this.stopTimer();
        this.detach();
        const conn = this.open();
        if (this.attempt === 0) {
            this.setState(State.CONNECTING, { resuming: true });
        }
        const { wait, hold, window: wind } = this.wire;
        try {
            conn.restore(null, (status, condition) => this.statusChanged(conn, status, condition), wait, hold,
                wind);
        } catch {
            this.conn = null;
            this.lost('item-not-found'); // nothing stored
        }
    }

    /** Ends the session for good and forgets it. */
    logout() {
        const conn = this.conn;
        const live = conn && conn.connected && this.state === State.ONLINE;
        this.stopTimer();
        this.credentials = null;
        this.attempt = 0;
        this.callbacks.clear();
        if (live) {
            conn.connect_callback = null;
            conn.xmlInput = conn.nextValidRid = conn.xmlOutput = () => {};
            conn.protocolErrorHandlers.HTTP = {};
            conn._sessionCachingSupported = () => false; // its end must not touch what is stored by then
            this.conn = null;
            conn.disconnect('logout');
        } else {
            this.detach();
        }
        this.forgetTransport();
        this.setState(State.OFFLINE, {});
    }

    /** Sends a stanza now, or as soon as there is a connection. Returns its id. */
    send(stanza) {
        const tree = stanza.tree ? stanza.tree() : stanza;
        if (!tree.getAttribute('id')) {
            tree.setAttribute('id', newId());
        }
        const id = tree.getAttribute('id');
        this.wire.outbox.push({ id, xml: Strophe.serialize(tree), name: tree.nodeName });
        this.saveWire();
        if (this.conn && this.conn.authenticated) {
            this.conn.send(tree);
            if (tree.nodeName === 'message') {
                this.flushSoon(this.conn); // not after Strophe's tenth of a second
            }
        }
        return id;
    }

    /** Sends an iq; done(element) is called with its result or error, if that comes before a reload. */
    iq(stanza, done) {
        const id = this.send(stanza);
        if (done) {
            this.callbacks.set(id, done);
        }
    }

    /** The user, or the browser, says that the network is back. */
    retryNow() {
        if (this.state === State.RECONNECTING) {
            this.stopTimer();
            this.retry();
        }
    }

    // --- from here on private ---------------------------------------------------------------------

    setState(state, detail) {
        this.state = state;
        this.on.state(state, detail);
    }

    saveWire() {
        this.store.set('wire', this.wire);
    }

    forgetTransport() {
        this.wire = emptyWire();
        this.store.set('wire', null);
        try {
            sessionStorage.removeItem(STROPHE_KEY);
        } catch {
            /* storage switched off */
        }
    }

    /** A Strophe connection that reports to us. */
    open() {
        const conn = new Strophe.Connection(this.url, { keepalive: true });
        conn.xmlOutput = (body) => this.requestSent(conn, body);
        conn.xmlInput = (body) => this.bodyReceived(conn, body);
        conn.nextValidRid = (rid) => this.requestAnswered(conn, rid - 1);
        conn.addProtocolErrorHandler('HTTP', 0, () => this.transportFailed(conn));
        for (let code = 500; code < 600; code++) {
            conn.addProtocolErrorHandler('HTTP', code, () => this.transportFailed(conn));
        }
        this.conn = conn;
        this.failure = null;
        return conn;
    }

    connect() {
        this.stopTimer();
        this.detach();
        const conn = this.open();
        if (this.attempt === 0) {
            this.setState(State.CONNECTING, {});
        }
        this.timer = setTimeout(() => this.loginTimedOut(conn), LOGIN_TIMEOUT);
        conn.connect(this.credentials.jid, this.credentials.password,
            (status, condition) => this.statusChanged(conn, status, condition));
    }

    loginTimedOut(conn) {
        if (conn === this.conn && !conn.authenticated) {
            this.detach();
            this.lost('timeout');
        }
    }

    statusChanged(conn, status, condition) {
        if (conn !== this.conn) {
            return;
        }
        switch (status) {
        case Strophe.Status.CONNECTED:
            this.stopTimer();
            this.connected(conn);
            break;
        case Strophe.Status.ATTACHED:
            this.begin(conn);
            this.repeatUnanswered(conn);
            this.wire.outbox.splice(0).forEach(({ xml }) => this.send(parse(xml)));
            // The repeated request may be held for long; this asks for an answer, whatever it is.
            this.send($iq({ type: 'get', to: conn.domain }).c('ping', { xmlns: 'urn:xmpp:ping' }));
            break;
        case Strophe.Status.AUTHFAIL:
            this.failure = this.failure || 'not-authorized';
            conn.disconnect();
            break;
        case Strophe.Status.CONNFAIL:
            this.failure = this.failure || condition || 'connect-failed';
            break;
        case Strophe.Status.DISCONNECTED:
            this.detach();
            this.lost(this.failure || condition || 'connect-failed');
            break;
        }
    }

    connected(conn) {
        const waiting = this.wire.outbox;
        const { wait, hold, window: wind } = conn._proto;
        this.wire = { ...emptyWire(), jid: conn.jid, wait, hold, window: wind };
        this.begin(conn);
        this.on.started(conn.jid);
        waiting.forEach(({ xml }) => this.send(parse(xml)));
    }

    begin(conn) {
        conn.addHandler((stanza) => {
            try {
                this.stanzaReceived(stanza);
            } catch (error) {
                console.error(error); // one bad stanza must not end the handler
            }
            return true;
        });
        this.saveWire();
    }

    stanzaReceived(stanza) {
        const type = stanza.getAttribute('type');
        if (stanza.nodeName === 'iq' && (type === 'result' || type === 'error')) {
            const done = this.callbacks.get(stanza.getAttribute('id'));
            this.callbacks.delete(stanza.getAttribute('id'));
            if (done) {
                done(stanza);
            }
        } else {
            this.on.stanza(stanza);
        }
    }

    requestSent(conn, body) {
        if (conn !== this.conn || !conn.authenticated || body.getAttribute('type') === 'terminate') {
            return;
        }
        const rid = Number(body.getAttribute('rid'));
        if (this.wire.unanswered.some((request) => request.rid === rid)) {
            return;
        }
        const ids = Array.from(body.children, (child) => child.getAttribute('id')).filter(Boolean);
        this.wire.unanswered.push({ rid, xml: Strophe.serialize(body), ids });
        this.wire.outbox = this.wire.outbox.filter((entry) => !ids.includes(entry.id));
        this.saveWire();
    }

    requestAnswered(conn, rid) {
        if (conn !== this.conn) {
            return;
        }
        this.wire.unanswered = this.wire.unanswered.filter((request) => request.rid !== rid);
        this.saveWire();
        if (document.hidden) {
            // Browsers slow down the timers of hidden pages to one a minute, and Strophe polls from a
            // timer: that is longer than the server lets a session be silent. So poll without one.
            this.flushSoon(conn);
        }
    }

    /** Lets Strophe send what it has, or poll, at the end of this task. */
    flushSoon(conn) {
        queueMicrotask(() => {
            if (conn === this.conn && conn.authenticated) {
                conn.flush();
            }
        });
    }

    bodyReceived(conn, body) {
        if (conn !== this.conn || body.getAttribute('type') === 'terminate') {
            return;
        }
        if (!conn.authenticated) {
            if (!body.firstChild) {
                setTimeout(() => this.askAgain(conn), ASK_AGAIN);
            }
            return;
        }
        this.everOnline = true;
        if (this.state !== State.ONLINE) {
            this.onlineSince = Date.now();
            this.setState(State.ONLINE, {});
        }
    }

    /**
     * Polls during the login. Strophe does so only after it, and would wait for ever when the server answers
     * what it has no answer for yet: when it restarts, or `wait` is over.
     */
    askAgain(conn) {
        const idle = conn._proto._requests.length === 0 && conn._data.length === 0;
        if (conn === this.conn && idle && !conn.authenticated && !conn.disconnecting) {
            conn._data.push(null); // Strophe's mark for a request without payload
            conn.flush();
        }
    }

    /** No answer, or the answer of a broken proxy. */
    transportFailed(conn) {
        if (conn !== this.conn) {
            return;
        }
        this.detach();
        if (!this.everOnline && !this.canResume()) {
            this.lost('unreachable');
        } else {
            this.schedule();
        }
    }

    /** The session is gone. */
    lost(condition) {
        const uncertain = this.wire.unanswered.flatMap((request) => request.ids);
        const waiting = this.wire.outbox.filter((entry) => entry.name === 'message');
        const final = FINAL_CONDITIONS.includes(condition);
        this.forgetTransport();
        this.callbacks.clear();
        this.on.uncertain(uncertain);
        if (this.credentials && this.everOnline && !final) {
            this.wire.outbox = waiting; // never left the page: goes out after the next login
            this.schedule();
            return;
        }
        const expired = !this.credentials && !final;
        this.on.uncertain(waiting.map((entry) => entry.id));
        this.credentials = null;
        this.attempt = 0;
        this.stopTimer();
        this.setState(State.OFFLINE, {});
        this.on.ended(expired ? 'expired' : 'failed', condition);
    }

    schedule() {
        this.stopTimer();
        if (this.state === State.ONLINE && Date.now() - this.onlineSince > STABLE) {
            this.attempt = 0; // a server that ends each session at once is not to be hammered
        }
        this.attempt++;
        const pause = this.attempt === 1 ? 0.2 : Math.min(MAX_PAUSE, 2 ** (this.attempt - 2));
        const delay = Math.round(1000 * pause * (0.8 + 0.4 * Math.random()));
        this.timer = setTimeout(() => this.retry(), delay);
        this.setState(State.RECONNECTING, { attempt: this.attempt, until: Date.now() + delay });
    }

    retry() {
        if (this.canResume()) {
            this.resume();
        } else if (this.credentials) {
            this.connect();
        } else {
            this.lost('item-not-found');
        }
    }

    stopTimer() {
        clearTimeout(this.timer);
        this.timer = null;
    }

    /** Takes the Strophe connection out of service without a word to the server. */
    detach() {
        const conn = this.conn;
        this.conn = null;
        if (!conn) {
            return;
        }
        conn.connect_callback = null;
        conn.connected = conn.authenticated = false;
        clearTimeout(conn._idleTimeout);
        for (const request of conn._proto._requests.splice(0)) {
            request.abort = true;
            request.xhr.onreadystatechange = null;
            request.xhr.send = () => {}; // Strophe may have a delayed call of it pending
            request.xhr.abort();
        }
        conn._data = [];
    }

    /** Sends again, under their rids, the requests that nobody answered. */
    repeatUnanswered(conn) {
        const proto = conn._proto;
        for (const { rid, xml } of this.wire.unanswered) {
            const request = new Strophe.Request(parse(xml),
                proto._onRequestStateChange.bind(proto, conn._dataRecv.bind(conn)), rid);
            request.data = xml; // the very same bytes
            proto._requests.push(request);
        }
        proto._throttledRequestHandler();
    }
}

function emptyWire() {
    return { jid: null, wait: 0, hold: 0, window: 0, unanswered: [], outbox: [] };
}

function parse(xml) {
    return new DOMParser().parseFromString(xml, 'text/xml').documentElement;
}

/** An id that no other page of anybody makes up as well. */
export function newId() {
    const bytes = crypto.getRandomValues(new Uint8Array(12));
    return Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join('');
}
