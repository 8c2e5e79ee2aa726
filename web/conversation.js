/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The right side: one conversation, its messages, and the field to write in.
 */

import { ask, avatar, byId, el, icon, linkify, menu, roomAvatar } from './dom.js';
import { formatDay, formatFull, formatTime, reason, sameDay, t } from './i18n.js';

const GROUP = 5 * 60 * 1000; // messages of one person within this time are drawn as one group
const TYPING_PAUSE = 6000;

export class Conversation {
    /**
     * @param {Client} client
     * @param {function} close  called when the user leaves the conversation without opening another
     */
    constructor(client, close) {
        this.client = client;
        this.close = close;
        this.jid = null;
        this.typingTimer = null;
        this.log = byId('log');
        this.text = byId('text');
        menu(byId('more'), () => this.menuItems());
        byId('back').addEventListener('click', () => close());
        byId('composer').addEventListener('submit', (event) => {
            event.preventDefault();
            this.send();
        });
        this.text.addEventListener('keydown', (event) => {
            // isComposing: Enter chooses a candidate of an input method (Chinese, Japanese, ...)
            if (event.key === 'Enter' && !event.shiftKey && !event.isComposing && event.keyCode !== 229) {
                event.preventDefault();
                this.send();
            }
        });
        this.text.addEventListener('input', () => {
            client.setDraft(this.jid, this.text.value);
            this.fit();
            this.typed();
        });
        this.log.addEventListener('scroll', () => this.scrolled());
        byId('to-bottom').addEventListener('click', () => {
            this.toBottom();
            this.text.focus();
        });
        new ResizeObserver(() => this.pinned && this.toBottom()).observe(this.log);
        this.pinned = true; // the newest message is in view, and shall stay so
    }

    get chat() {
        return this.client.chats.get(this.jid) || null;
    }

    show(jid, focus) {
        this.stopTyping();
        this.jid = jid;
        const chat = this.chat;
        byId('chat').hidden = !chat;
        byId('empty').hidden = Boolean(chat);
        if (!chat) {
            this.jid = null;
            this.text.value = '';
            byId('messages').replaceChildren(); // after a log-out nothing is left in the document
            return;
        }
        this.text.value = chat.draft;
        this.fit();
        this.drawHeader();
        this.drawAll();
        this.toBottom();
        if (focus) {
            this.text.focus();
        }
    }

    // --- header -------------------------------------------------------------------------------------

    drawHeader() {
        const chat = this.chat;
        if (!chat) {
            return;
        }
        const name = this.client.displayName(chat.id);
        byId('chat-title').textContent = name;
        byId('chat-title').title = chat.id;
        byId('chat-avatar').replaceChildren(chat.room ? roomAvatar(chat.id) :
            avatar(chat.id, name, this.client.presenceOf(chat.id).show));
        byId('chat-subtitle').textContent = chat.room ? this.roomLine(chat) : this.contactLine(chat);
        byId('chat-subtitle').classList.toggle('typing', this.client.isTyping(chat.id));
        this.log.setAttribute('aria-label', t('messages', { name }));
        this.text.setAttribute('aria-label', t('message', { name }));
        this.text.placeholder = t('message', { name });
    }

    roomLine(chat) {
        const names = Object.keys(chat.occupants);
        if (!chat.joined) {
            return t('roomNotJoined');
        }
        if (chat.subject) {
            return chat.subject;
        }
        return names.length < 2 ? t('roomAlone') : t('roomPeople', { n: names.length, names: names.join(', ') });
    }

    contactLine(chat) {
        if (this.client.isTyping(chat.id)) {
            return t('typing');
        }
        if (!this.client.roster.has(chat.id)) {
            return chat.id;
        }
        const { show, status } = this.client.presenceOf(chat.id);
        return status || t(show || 'online');
    }

    menuItems() {
        const chat = this.chat;
        const items = [];
        if (chat.room && !chat.joined) {
            items.push({ label: t('rejoinRoom'), icon: 'people',
                action: () => this.client.rooms.join(chat.id, chat.nick) });
        }
        items.push({ label: t(chat.room ? 'leaveRoom' : 'closeChat'), icon: 'close', action: () => {
            this.client.closeChat(chat.id);
            this.close();
        } });
        if (this.client.roster.has(chat.id)) {
            items.push({ label: t('removeContact'), icon: 'trash', danger: true, action: () => this.remove(chat) });
        } else if (!chat.room && !this.client.me.anonymous) {
            items.push({ label: t('addContact'), icon: 'person',
                action: () => this.client.addContact(chat.id, '') });
        }
        return items;
    }

    async remove(chat) {
        const name = this.client.displayName(chat.id);
        if (await ask({ title: t('removeContact'), text: t('removeAsk', { name }), ok: t('remove'), danger: true })) {
            this.client.removeContact(chat.id);
            this.client.closeChat(chat.id);
            this.close();
        }
    }

    // --- messages -----------------------------------------------------------------------------------

    /** Draws everything anew; a screen reader shall not read all of it. */
    drawAll() {
        const list = byId('messages');
        const { messages } = this.chat;
        this.log.setAttribute('aria-live', 'off');
        if (messages.length) {
            list.replaceChildren(...messages.flatMap((message, i) => this.nodes(message, messages[i - 1])));
        } else {
            list.replaceChildren(el('li.hint', {}, t('noMessages')));
        }
        requestAnimationFrame(() => this.log.setAttribute('aria-live', 'polite'));
        if (this.pinned) {
            this.toBottom();
        }
    }

    /** A message was added at the end, or (null) some have changed. */
    update(chat, added) {
        if (chat.id !== this.jid) {
            return;
        }
        const list = byId('messages');
        if (!added || !list.querySelector('.msg')) {
            this.drawAll();
            return;
        }
        list.append(...this.nodes(added, chat.messages[chat.messages.length - 2]));
        while (list.querySelectorAll('.msg').length > chat.messages.length) {
            list.firstElementChild.remove();
        }
        if (this.pinned || added.mine) {
            this.toBottom();
        }
    }

    nodes(message, previous) {
        const newDay = !previous || !sameDay(previous.at, message.at);
        const first = newDay || previous.mine !== message.mine || previous.nick !== message.nick ||
            message.at - previous.at > GROUP;
        const item = this.messageNode(message, first);
        return newDay ? [el('li.day', {}, el('span', {}, formatDay(message.at))), item] : [item];
    }

    messageNode(message, first) {
        const { chat } = this;
        const who = message.mine ? t('you') : message.nick || this.client.displayName(chat.id);
        const problem = message.state === 'uncertain' || message.state === 'failed';
        const time = new Date(message.at);
        return el(`li.msg${message.mine ? '.mine' : ''}${first ? '.first' : ''}${problem ? '.problem' : ''}`,
            { dataset: { id: message.id } },
            el(`span.${chat.room && !message.mine && first ? 'nick' : 'sr-only'}`, {}, who,
                el('span.sr-only', {}, ': ')),
            el('div.bubble', {},
                el('span.body', { dir: 'auto' }, linkify(message.body)),
                el('span.meta', {},
                    message.delayed ? el('span.delayed', {}, icon('clock'), `${t('delayed')} · `) : null,
                    el('time', { datetime: time.toISOString(), title: formatFull(time) }, formatTime(time)),
                    message.mine ? this.stateNode(message) : null)),
            problem ? this.problemNode(message) : null);
    }

    stateNode(message) {
        const waiting = message.state === 'sent' && this.client.state !== 'online';
        const [name, key] = waiting ? ['clock', 'stateSending'] : {
            sent: ['check', 'stateSent'],
            delivered: ['checks', 'stateDelivered'],
        }[message.state] || [null, null];
        return name && el('span.state', { title: t(key) }, icon(name), el('span.sr-only', {}, t(key)));
    }

    problemNode(message) {
        const text = message.state === 'uncertain' ? t('uncertain') :
            message.error ? t('failedBecause', { reason: reason(message.error) }) : t('failed');
        return el('div.trouble', {}, icon('alert'), el('span', {}, text),
            el('button.link', { type: 'button', onclick: () => this.client.retryMessage(this.jid, message.id) },
                t('sendAgain')));
    }

    /** Clock marks depend on the connection. */
    connectionChanged() {
        if (this.chat) {
            this.drawAll();
        }
    }

    // --- scrolling ----------------------------------------------------------------------------------

    toBottom() {
        this.log.scrollTop = this.log.scrollHeight;
        this.pinned = true;
        byId('to-bottom').hidden = true;
    }

    scrolled() {
        this.pinned = this.log.scrollHeight - this.log.scrollTop - this.log.clientHeight < 40;
        byId('to-bottom').hidden = this.pinned;
    }

    // --- writing ------------------------------------------------------------------------------------

    send() {
        const text = this.text.value;
        if (!this.chat || !text.trim()) {
            return;
        }
        clearTimeout(this.typingTimer);
        this.typingTimer = null;
        this.client.setDraft(this.jid, '');
        this.text.value = '';
        this.fit();
        this.client.sendMessage(this.jid, text.trimEnd());
        this.text.focus();
    }

    /** The field is as high as its text. */
    fit() {
        this.text.style.height = 'auto';
        this.text.style.height = `${this.text.scrollHeight}px`;
    }

    typed() {
        if (this.typingTimer === null && this.text.value) {
            this.client.sendTyping(this.jid, true);
        }
        clearTimeout(this.typingTimer);
        this.typingTimer = setTimeout(() => this.stopTyping(), TYPING_PAUSE);
    }

    stopTyping() {
        if (this.typingTimer !== null) {
            clearTimeout(this.typingTimer);
            this.typingTimer = null;
            this.client.sendTyping(this.jid, false);
        }
    }
}
