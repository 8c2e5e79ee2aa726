/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A client of XEP-0252: each request is a <script> element, each answer a call of _BOSH_(). script.mjs calls
 * chat() and looks at what it resolves to.
 */

const NS = 'http://jabber.org/protocol/httpbind';
const MOST = 900; // characters of text in one request: what is longer goes in pieces

/* Who has asked is the element that is running. */
window._BOSH_ = (text) => document.currentScript.answered(text);

class Connection {
    constructor(url) {
        this.url = url;
        this.rid = 1000;
        this.sid = null;
        this.open = 0;
        this.arrived = [];
        this.over = null;
        this.changed = () => {};
    }

    /** Until something has changed; fails when the session did. */
    async change() {
        await new Promise((resolve) => {
            this.changed = resolve;
        });
        if (this.over) {
            throw new Error(this.over);
        }
    }

    /** Resolves when it has been sent, not when it is answered. */
    async request(attributes, content = '') {
        while (this.open >= 2) {
            await this.change();
        }
        const names = { rid: this.rid++, sid: this.sid, ...attributes };
        const tag = Object.keys(names).filter((name) => names[name] !== null)
            .map((name) => ` ${name}='${names[name]}'`).join('');
        const element = document.createElement('script');
        element.answered = (text) => this.take(text);
        element.onload = () => {
            this.open--;
            element.remove();
            this.changed();
        };
        element.onerror = () => {
            this.over = 'a script could not be loaded';
            this.changed();
        };
        element.src = `${this.url}?${encodeURIComponent(`<body xmlns='${NS}'${tag}>${content}</body>`)}`;
        this.open++;
        document.head.append(element);
    }

    take(text) {
        const body = new DOMParser().parseFromString(text, 'text/xml').documentElement;
        if (body.namespaceURI !== NS) {
            this.over = `no body: ${text}`;
        } else if (body.getAttribute('type') === 'terminate') {
            this.over = body.getAttribute('condition') || 'ended';
        }
        this.sid = this.sid || body.getAttribute('sid');
        this.arrived.push(...body.children);
    }

    /** The first element of this name that arrives; asks for it. */
    async until(name) {
        for (;;) {
            const at = this.arrived.findIndex((element) => element.localName === name);
            if (at >= 0) {
                return this.arrived.splice(at, 1)[0];
            }
            if (this.open === 0) {
                await this.request({});
            }
            await this.change();
        }
    }

    async send(text) {
        for (let at = 0; at < text.length; at += MOST) {
            await this.request({}, text.slice(at, at + MOST));
        }
    }

    async login(domain, user, password) {
        await this.request({ 'to': domain, 'wait': 20, 'hold': 1, 'ver': '1.6', 'content': 'text/xml; charset=utf-8',
            'xml:lang': 'en', 'xmlns:xmpp': 'urn:xmpp:xbosh', 'xmpp:version': '1.0' });
        await this.until('features');
        await this.send(`<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>${
            btoa(`\0${user}\0${password}`)}</auth>`);
        await this.until('success');
        await this.request({ 'to': domain, 'xmlns:xmpp': 'urn:xmpp:xbosh', 'xmpp:restart': 'true' });
        await this.until('features');
        await this.send("<iq xmlns='jabber:client' type='set' id='bind'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/>" +
            '</iq>');
        return (await this.until('iq')).getElementsByTagName('jid')[0].textContent;
    }
}

function escapeXml(text) {
    return text.replace(/[&<>"']/g, (char) => `&#${char.charCodeAt(0)};`);
}

/** Logs in, sends the texts to itself, logs out; what it got. */
async function chat(url, [jid, password], texts) {
    const connection = new Connection(url);
    const [user, domain] = jid.split('@');
    const me = await connection.login(domain, user, password);
    const got = [];
    for (const text of texts) {
        await connection.send(`<message xmlns='jabber:client' to='${me}' type='chat'><body>${escapeXml(text)}</body></message>`);
        got.push((await connection.until('message')).getElementsByTagName('body')[0].textContent);
    }
    await connection.request({ type: 'terminate' });
    while (!connection.over) {
        await connection.change().catch(() => {});
    }
    return { got, end: connection.over };
}

window.chat = chat;
