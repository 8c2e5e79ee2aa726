/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The left side: who I am, contact requests, open chats, contacts. Draws what the client knows; both lists
 * are one stop of the Tab key, and the arrow keys go through them.
 */

import { bare } from './stanza.js';
import { avatar, ask, byId, el, menu, moveFocus, roomAvatar, toast } from './dom.js';
import { formatShort, t } from './i18n.js';
import { parseAddress } from './stanza.js';

const ORDER = { '': 0, dnd: 1, away: 2, offline: 3 };

export class Sidebar {
    /**
     * @param {Client} client
     * @param {object} config
     * @param {function} open  open(jid, byKeyboard): shows that conversation
     */
    constructor(client, config, open) {
        this.client = client;
        this.config = config;
        this.open = open;
        this.active = null; // JID of the conversation that is shown
        this.tabStop = null; // data-key of the row that Tab reaches
        this.focusPending = false;
        byId('my-show').addEventListener('change', (event) => {
            client.setShow(event.target.value);
            this.drawMe();
        });
        menu(byId('new'), () => this.newItems());
        byId('lists').addEventListener('keydown', (event) => {
            if (event.target.matches('.row')) {
                moveFocus(event, this.rows());
            }
        });
        byId('lists').addEventListener('focusin', (event) => {
            if (event.target.matches('.row')) {
                this.setTabStop(event.target.dataset.key);
            }
        });
    }

    rows() {
        return [...byId('lists').querySelectorAll('.row')];
    }

    setTabStop(key) {
        const rows = this.rows();
        const stop = rows.find((row) => row.dataset.key === key) || rows[0];
        this.tabStop = stop ? stop.dataset.key : null;
        rows.forEach((row) => row.setAttribute('tabindex', row === stop ? '0' : '-1'));
    }

    /** Focuses the list; when there is nothing in it yet, as soon as there is. */
    focus() {
        const rows = this.rows();
        const stop = rows.find((row) => row.dataset.key === this.tabStop) || rows[0];
        this.focusPending = !stop;
        stop?.focus();
    }

    draw() {
        const focused = document.activeElement?.dataset?.key;
        this.drawMe();
        this.drawRequests();
        this.drawChats();
        this.drawContacts();
        const current = this.active && this.rows().find((row) => row.dataset.jid === this.active);
        this.setTabStop(focused || this.tabStop || (current && current.dataset.key));
        if (focused) {
            this.rows().find((row) => row.dataset.key === focused)?.focus();
        } else if (this.focusPending && document.activeElement === document.body) {
            this.focus();
        }
    }

    drawMe() {
        const { me } = this.client;
        if (!me.jid) {
            return;
        }
        const name = me.anonymous ? t('guestName') : bare(me.jid).split('@')[0];
        const online = this.client.state === 'online';
        byId('my-name').textContent = name;
        byId('my-name').title = me.anonymous ? me.jid : bare(me.jid);
        byId('my-show').value = me.show;
        byId('my-avatar').replaceChildren(avatar(bare(me.jid), name, online ? me.show : 'offline'));
    }

    drawRequests() {
        byId('requests-part').hidden = this.client.requests.size === 0;
        byId('requests').replaceChildren(...[...this.client.requests].map((jid) => el('li.request', {},
            avatar(jid, jid),
            el('p', {}, t('requestText', { name: jid })),
            el('div.buttons', {},
                el('button.quiet', { type: 'button', onclick: () => this.client.answerRequest(jid, false) },
                    t('decline')),
                el('button.primary', { type: 'button', onclick: () => this.client.answerRequest(jid, true) },
                    t('accept'))))));
    }

    drawChats() {
        byId('chats-part').hidden = this.client.chats.size === 0;
        byId('chats').replaceChildren(...[...this.client.chats.values()].map((chat) => {
            const name = this.client.displayName(chat.id);
            const last = chat.messages[chat.messages.length - 1];
            const typing = this.client.isTyping(chat.id);
            return this.row('chat', chat.id, name, {
                show: chat.room ? null : this.client.presenceOf(chat.id).show,
                room: chat.room,
                preview: typing ? t('typing') : (last ? this.preview(chat, last) : ''),
                typing,
                time: last ? last.at : 0,
                unread: chat.unread,
            });
        }));
    }

    preview(chat, message) {
        const text = message.body.slice(0, 120).replace(/\s+/g, ' ');
        if (message.mine) {
            return `${t('you')}: ${text}`;
        }
        return chat.room ? `${message.nick}: ${text}` : text;
    }

    drawContacts() {
        const { client } = this;
        const contacts = [...client.roster.keys()].map((jid) => ({ jid, name: client.displayName(jid),
            presence: client.presenceOf(jid), item: client.roster.get(jid) }));
        contacts.sort((a, b) => ORDER[a.presence.show] - ORDER[b.presence.show] || a.name.localeCompare(b.name));
        byId('contacts').replaceChildren(...contacts.map(({ jid, name, presence, item }) => this.row('contact', jid,
            name, {
                show: presence.show,
                preview: item.ask && ['none', 'from'].includes(item.subscription) ? t('waitingForApproval') :
                    presence.status || t(presence.show || 'online'),
            })));
        const empty = byId('no-contacts');
        empty.hidden = contacts.length > 0 || (!client.rosterLoaded && !client.me.anonymous);
        empty.textContent = t(client.me.anonymous ? 'noContactsGuest' : 'noContacts');
        byId('contacts-part').hidden = client.me.anonymous && client.chats.size > 0;
    }

    row(kind, jid, name, { show = null, room = false, preview = '', typing = false, time = 0, unread = 0 }) {
        const key = `${kind}:${jid}`;
        const current = kind === 'chat' && jid === this.active;
        return el('li', {}, el(`button.row${unread ? '.unread' : ''}`, {
            type: 'button',
            tabindex: '-1',
            title: jid,
            dataset: { key, jid },
            'aria-current': current ? 'true' : null,
            onclick: (event) => this.open(jid, event.detail === 0),
        },
        room ? roomAvatar(jid) : avatar(jid, name, show),
        el('span.lines', {},
            el('span.name', {}, name,
                show === null || kind === 'contact' ? null : el('span.sr-only', {}, ` (${t(show || 'online')})`)),
            el(`span.preview${typing ? '.typing' : ''}`, {}, preview)),
        time || unread ? el('span.aside', {},
            time ? el('time', { datetime: new Date(time).toISOString() }, formatShort(time)) : null,
            unread ? el('span.badge', {}, el('span', { 'aria-hidden': 'true' }, unread > 99 ? '99+' : String(unread)),
                el('span.sr-only', {}, t('unread', { n: unread }))) : null) : null));
    }

    // --- new things ---------------------------------------------------------------------------------

    newItems() {
        const contact = { label: t('addContact'), icon: 'person', action: () => this.askContact() };
        return [
            ...(this.client.me.anonymous ? [] : [contact]),
            { label: t('messageSomebody'), icon: 'message', action: () => this.askAddress() },
            { label: t('joinRoom'), icon: 'people', action: () => this.askRoom() },
        ];
    }

    address(text) {
        return parseAddress(text, this.config.domain);
    }

    async askContact() {
        const values = await ask({ title: t('addContact'), ok: t('add'), fields: [
            { name: 'address', label: t('contactAddress'), hint: t('addressHint') },
            { name: 'name', label: t('contactName') },
        ], check: ({ address }) => (this.address(address) ? null : t('badAddress')) });
        if (values) {
            const jid = this.address(values.address);
            this.client.addContact(jid, values.name);
            toast(t('added', { jid }));
        }
    }

    async askAddress() {
        const values = await ask({ title: t('messageSomebody'), ok: t('open'), fields: [
            { name: 'address', label: t('contactAddress'), hint: t('addressHint') },
        ], check: ({ address }) => (this.address(address) ? null : t('badAddress')) });
        if (values) {
            this.open(this.address(values.address), true);
        }
    }

    async askRoom() {
        const { me } = this.client;
        const service = this.config.roomService || `conference.${this.config.domain}`;
        const name = me.anonymous ? `${t('guestName')}-${bare(me.jid).slice(0, 4)}` : bare(me.jid).split('@')[0];
        const values = await ask({ title: t('joinRoom'), ok: t('join'), fields: [
            { name: 'room', label: t('roomName'), hint: t('roomHint') },
            { name: 'nick', label: t('nickname'), value: name },
        ], check: ({ room, nick }) => (!parseAddress(room, service) ? t('badAddress') :
            nick ? null : t('needName')) });
        if (values) {
            const jid = parseAddress(values.room, service);
            this.client.rooms.join(jid, values.nick);
            this.open(jid, true);
        }
    }
}
