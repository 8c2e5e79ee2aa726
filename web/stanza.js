/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reading stanzas and addresses: functions without any state.
 */

/* global Strophe */

export const NS = {
    ROSTER: 'jabber:iq:roster',
    DELAY: 'urn:xmpp:delay',
    RECEIPTS: 'urn:xmpp:receipts',
    CHATSTATES: 'http://jabber.org/protocol/chatstates',
    CARBONS: 'urn:xmpp:carbons:2',
    FORWARD: 'urn:xmpp:forward:0',
    MUC: 'http://jabber.org/protocol/muc',
    MUC_USER: 'http://jabber.org/protocol/muc#user',
    MUC_OWNER: 'http://jabber.org/protocol/muc#owner',
    DISCO_INFO: 'http://jabber.org/protocol/disco#info',
    PING: 'urn:xmpp:ping',
    XDATA: 'jabber:x:data',
    STANZAS: 'urn:ietf:params:xml:ns:xmpp-stanzas',
};

const SHOWS = ['', 'chat', 'away', 'xa', 'dnd']; // of XMPP; the page shows '', away, dnd

/** The JID without its resource, in the one spelling that can be compared. */
export function bare(jid) {
    return (Strophe.getBareJidFromJid(jid) || '').toLowerCase();
}

/** Completes and checks what a user typed as an address; null when it can be none. */
export function parseAddress(text, domain) {
    const typed = text.trim().toLowerCase();
    const jid = typed.includes('@') || typed === '' ? typed : `${typed}@${domain}`;
    return /^[^\s@/"&'<>:]+@[^\s@/"&'<>:]+$/.test(jid) ? jid : null;
}

/** What XML cannot carry (control characters, half of a character) would end the session: drop it. */
export function cleanText(text) {
    return text.replace(/\r\n?/g, '\n')
        // eslint-disable-next-line no-control-regex
        .replace(/[\u0000-\u0008\u000b\u000c\u000e-\u001f\ufffe\uffff]/g, '')
        .replace(/[\ud800-\udbff](?![\udc00-\udfff])|(?<![\ud800-\udbff])[\udc00-\udfff]/g, '\ufffd');
}

export function childText(element, name) {
    const child = Array.from(element.children).find((candidate) => candidate.localName === name);
    return child ? child.textContent : '';
}

export function showOf(presence) {
    const show = childText(presence, 'show').trim();
    return SHOWS.includes(show) ? show : '';
}

export function rank(show) {
    return ['chat', '', 'dnd', 'away', 'xa'].indexOf(show);
}

/** When the message was really sent, in ms, if it was kept somewhere on its way (XEP-0203); else 0. */
export function delayOf(message) {
    const delay = Array.from(message.children).find((child) => child.namespaceURI === NS.DELAY);
    const at = delay ? Date.parse(delay.getAttribute('stamp')) : NaN;
    return Number.isNaN(at) ? 0 : Math.min(at, Date.now());
}

/** What an error stanza says: {condition, text}. */
export function errorOf(stanza) {
    const error = Array.from(stanza.children).find((child) => child.localName === 'error');
    const condition = error && Array.from(error.children).find((child) => child.localName !== 'text');
    const text = error ? childText(error, 'text') : '';
    return { condition: condition ? condition.localName : 'undefined-condition', text };
}
