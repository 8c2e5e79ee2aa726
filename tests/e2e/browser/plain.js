/* SPDX-License-Identifier: Apache-2.0 */
/*
 * strophe.js as any page would use it: plain connections, its own handlers, nothing private.
 * plain.mjs calls talk() and looks at what it resolves to.
 */

/* global Strophe, $msg, $pres */

class Talker {
    constructor(url, jid, password) {
        this.conn = new Strophe.Connection(url);
        this.jid = jid;
        this.password = password;
        this.statuses = [];
        this.received = [];
    }

    connect() {
        return this.until(Strophe.Status.CONNECTED, () => this.conn.connect(this.jid, this.password,
            (status, condition) => this.changed(status, condition)));
    }

    disconnect() {
        return this.until(Strophe.Status.DISCONNECTED, () => this.conn.disconnect('done'));
    }

    until(status, act) {
        return new Promise((resolve, reject) => {
            this.wanted = { status, resolve, reject };
            act();
        });
    }

    changed(status, condition) {
        this.statuses.push(status);
        if (status === this.wanted.status) {
            this.wanted.resolve();
        } else if ([Strophe.Status.CONNFAIL, Strophe.Status.AUTHFAIL, Strophe.Status.ERROR].includes(status)) {
            this.wanted.reject(new Error(`${this.jid}: status ${status}, ${condition}`));
        }
    }

    listen(count) {
        this.conn.addHandler((message) => {
            const body = message.getElementsByTagName('body')[0];
            if (body) {
                this.received.push(body.textContent);
            }
            if (this.received.length === count) {
                this.all();
            }
            return true;
        }, null, 'message');
        this.conn.send($pres());
        return new Promise((resolve) => {
            this.all = resolve;
        });
    }

    say(to, texts) {
        for (const text of texts) {
            this.conn.send($msg({ to, type: 'chat' }).c('body').t(text));
        }
    }
}

/** Logs two users in, sends the texts from each to the other, logs out. */
async function talk(url, [alice, alicePassword], [bob, bobPassword], fromAlice, fromBob) {
    const a = new Talker(url, alice, alicePassword);
    const b = new Talker(url, bob, bobPassword);
    await Promise.all([a.connect(), b.connect()]);
    const all = [a.listen(fromBob.length), b.listen(fromAlice.length)];
    a.say(b.conn.jid, fromAlice);
    b.say(a.conn.jid, fromBob);
    await Promise.all(all);
    await Promise.all([a.disconnect(), b.disconnect()]);
    return { alice: a.received, bob: b.received, statuses: [a.statuses, b.statuses] };
}

window.talk = talk;
