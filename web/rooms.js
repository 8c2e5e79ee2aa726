/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Chat rooms (XEP-0045). A room is a conversation of the client with room = true, and nick, joined, subject
 * and occupants (name -> show) besides.
 */

/* global Strophe, $iq, $pres */

import { NS, childText, delayOf, errorOf, showOf } from './stanza.js';
import { newId } from './session.js';

export class Rooms {
    /** @param {Client} client */
    constructor(client) {
        this.client = client;
    }

    join(jid, nick) {
        const { client } = this;
        const chat = client.chats.get(jid) || { id: jid, unread: 0, messages: [], draft: '' };
        Object.assign(chat, { room: true, nick, joined: false, subject: '', occupants: {} });
        client.toTop(chat);
        this.enter(chat);
        client.on.changed('chats');
        return chat;
    }

    /** Enters, or after a new login enters again and asks for what was said meanwhile. */
    enter(chat) {
        const { client } = this;
        const last = chat.messages[chat.messages.length - 1];
        const history = last ? { since: new Date(last.at + 1).toISOString() } : { maxstanzas: '30' };
        chat.occupants = {};
        client.saveChat(chat.id);
        client.session.send(this.presence(chat).c('x', { xmlns: NS.MUC }).c('history', history));
    }

    leave(chat) {
        this.client.session.send($pres({ to: `${chat.id}/${chat.nick}`, type: 'unavailable' }));
    }

    rejoinAll() {
        for (const chat of this.client.chats.values()) {
            if (chat.room && chat.joined) {
                this.enter(chat);
            }
        }
    }

    /** Our presence in that room. */
    presence(chat) {
        const presence = $pres({ to: `${chat.id}/${chat.nick}` });
        const { show } = this.client.me;
        return show ? presence.c('show').t(show).up() : presence;
    }

    sendPresences() {
        for (const chat of this.client.chats.values()) {
            if (chat.room && chat.joined) {
                this.client.session.send(this.presence(chat));
            }
        }
    }

    presenceReceived(chat, stanza, nick, type) {
        const { client } = this;
        const statuses = Array.from(stanza.getElementsByTagNameNS(NS.MUC_USER, 'status'),
            (status) => status.getAttribute('code'));
        if (type === 'error') {
            this.refused(chat, stanza);
        } else if (type === 'unavailable') {
            this.left(chat, nick, statuses, stanza);
        } else if (type === null) {
            chat.occupants[nick] = showOf(stanza);
            if (statuses.includes('110')) {
                chat.joined = true;
                chat.nick = nick;
            }
            if (statuses.includes('201')) { // new: ours, and locked until we accept its default settings
                client.session.iq($iq({ to: chat.id, type: 'set' }).c('query', { xmlns: NS.MUC_OWNER })
                    .c('x', { xmlns: NS.XDATA, type: 'submit' }));
            }
        }
        client.saveChat(chat.id);
        client.on.changed('chats');
    }

    left(chat, nick, statuses, stanza) {
        delete chat.occupants[nick];
        if (statuses.includes('303')) { // a change of name: who comes next is the same person
            if (nick === chat.nick) {
                const item = stanza.getElementsByTagNameNS(NS.MUC_USER, 'item')[0];
                chat.nick = (item && item.getAttribute('nick')) || chat.nick;
            }
        } else if (statuses.includes('110') || nick === chat.nick) {
            chat.joined = false;
            chat.occupants = {};
            this.client.on.notice('leftRoom', { room: chat.id });
        }
    }

    refused(chat, stanza) {
        if (!chat.joined && stanza.getElementsByTagNameNS(NS.STANZAS, 'conflict').length) {
            chat.nick += '_'; // somebody else has that name there
            this.enter(chat);
            return;
        }
        chat.joined = false;
        this.client.on.notice('joinFailed', { room: chat.id, error: errorOf(stanza) });
    }

    messageReceived(chat, from, message) {
        const { client } = this;
        const nick = Strophe.getResourceFromJid(from);
        const body = childText(message, 'body');
        if (!body) {
            if (Array.from(message.children).some((child) => child.localName === 'subject')) {
                chat.subject = childText(message, 'subject');
                client.saveChat(chat.id);
                client.on.changed('chats');
            }
            return;
        }
        const id = message.getAttribute('id') || newId();
        const known = chat.messages.find((candidate) => candidate.id === id && candidate.nick === nick);
        if (known) { // our own, back from the room; or history that we have already
            if (known.mine && known.state !== 'delivered') {
                client.updateMessages((candidate) => candidate === known, { state: 'delivered' });
            }
            return;
        }
        const delay = delayOf(message);
        client.addMessage(chat, { id, mine: nick === chat.nick, nick: nick || chat.id, body,
            at: delay || Date.now(), delayed: false, old: Boolean(delay), state: '' });
    }
}
