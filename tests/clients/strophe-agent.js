/* SPDX-License-Identifier: Apache-2.0 */
/* strophe.js 5 and 1.2.14 as any page would use them; the same code for both. */

/* global Strophe, $msg, $pres */

const conn = new Strophe.Connection('/http-bind', { keepalive: true });

function changed(status, condition) {
    const { CONNECTED, ATTACHED, DISCONNECTED, CONNFAIL, AUTHFAIL, ERROR } = Strophe.Status;
    if (status === CONNECTED || status === ATTACHED) {
        conn.addHandler(received, null, 'message');
        if (status === CONNECTED) {
            conn.send($pres());
        }
        sessionStorage.setItem('jid', conn.jid);
        window.report('online', conn.jid);
    } else if (status === DISCONNECTED) {
        sessionStorage.removeItem('jid');
        window.report('offline');
    } else if ([CONNFAIL, AUTHFAIL, ERROR].includes(status)) {
        window.report('error', `status ${status}: ${condition}`);
    }
}

function received(message) {
    const body = message.getElementsByTagName('body')[0];
    if (body) {
        window.report('message', message.getAttribute('from'), body.textContent);
    }
    return true;
}

window.agent = {
    login: (jid, password) => conn.connect(jid, password, changed),
    attach: (jid, sid, rid) => conn.attach(jid, sid, Number(rid), changed),
    say: (to, text) => conn.send($msg({ to, type: 'chat' }).c('body').t(text)),
    session: () => [conn._proto.sid, conn._proto.rid],
    logout: () => conn.disconnect('done'),
};

if (sessionStorage.getItem('jid')) {
    conn.restore(sessionStorage.getItem('jid'), changed);
}
