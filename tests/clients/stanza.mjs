// SPDX-License-Identifier: Apache-2.0
// stanza 12 in node. A reload is a process that ends without a word and another one that attaches.

import * as XMPP from 'stanza';
import { report, serve } from './agent.mjs';

const users = new Map();

function start(user, url, jid, password, session) {
    // Stream management (XEP-0198) of its own would ask for an acknowledgement of each stanza in a request more, and
    // what it has not yet acknowledged at the logout is delivered again at the next login. BOSH has what it gives.
    const client = XMPP.createClient({ jid, password, transports: { bosh: url, websocket: false },
        useStreamManagement: false });
    users.set(user, client);
    const { bosh: BOSH } = client.transports;
    client.transports.bosh = class extends BOSH {
        constructor(...args) {
            super(...args);
            // It handles answers as they come in on its two connections; in the order of their rids they are in order.
            let last = Promise.resolve();
            for (const channel of this.channels) {
                const send = channel.send.bind(channel);
                channel.send = (rid, body) => {
                    const answer = send(rid, body);
                    const inOrder = last.then(() => answer);
                    last = inOrder.catch(() => {});
                    return inOrder;
                };
            }
        }

        connect(options) {
            super.connect({ ...options, ...session }); // it can attach, but no setting of the client reaches it
            this.authenticated ||= Boolean(session); // or it does not poll
        }
    };
    client.on('session:started', () => {
        client.sendPresence(); // it does not poll before it has said something
        report(user, 'online', client.jid);
    });
    client.on('message', ({ from, body }) => {
        if (body !== undefined) {
            report(user, 'message', from, body);
        }
    });
    client.on('disconnected', () => report(user, 'offline'));
    client.on('auth:failed', () => report(user, 'error', 'authentication failed'));
    client.on('stream:error', (error) => report(user, 'error', JSON.stringify(error)));
    client.connect();
}

await serve((user, command, args) => {
    const client = users.get(user);
    switch (command) {
    case 'login':
        start(user, args[0], args[1], args[2]);
        break;
    case 'attach':
        start(user, args[0], args[1], undefined, { sid: args[2], rid: Number(args[3]) });
        break;
    case 'say':
        client.sendMessage({ to: args[0], type: 'chat', body: args[1] });
        break;
    case 'session':
        report(user, 'session', client.transport.sid, client.transport.rid);
        break;
    case 'logout':
        client.disconnect();
        break;
    default:
        throw new Error(`no command ${command}`);
    }
});
process.exit(0);
