/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the page knows: contacts, presence, conversations, chat rooms; and what each stanza does to that.
 * No user interface: whoever draws it listens to changed(what). All of it is kept in the store, so that a
 * reload goes on where the page was.
 */

/* global Strophe, $iq, $msg, $pres */

import { NS, bare, childText, cleanText, delayOf, errorOf, rank, showOf } from './stanza.js';
import { Rooms } from './rooms.js';
import { Session, State, newId } from './session.js';

export { State };

const FEATURES = [NS.DISCO_INFO, NS.PING, NS.RECEIPTS, NS.CHATSTATES, NS.MUC];
const KEEP = 300; // messages of a conversation that are kept
const KEEP_WHEN_FULL = 40;
const TYPING_PAUSE = 6000;

export class Client {
    /**
     * @param {object} config  see config.js
     * @param {Store} store
     * @param {object} on      callbacks: changed(what), what being 'contacts', 'chats', 'me';
     *                         messages(chat, added); state(state, detail); ended(reason, condition);
     *                         notice(key, values): something to tell the user
     */
    constructor(config, store, on) {
        this.config = config;
        this.store = store;
        this.on = on;
        this.me = store.get('me') || { jid: null, anonymous: false, show: '' };
        this.roster = new Map(store.get('roster', []));
        this.rosterLoaded = this.me.rosterLoaded || false;
        this.presence = new Map(store.get('presence', []));
        this.requests = new Set(store.get('requests', []));
        this.chats = new Map();
        this.rooms = new Rooms(this);
        this.typing = new Map(); // bare JID -> timer, of others
        for (const id of store.get('chats', [])) {
            const chat = store.get(`chat.${id}`);
            if (chat) {
                this.chats.set(id, chat);
            }
        }
        store.onquota = () => this.trim(KEEP_WHEN_FULL);
        this.session = new Session(config.boshUrl, store, {
            state: (state, detail) => on.state(state, detail),
            stanza: (stanza) => this.stanzaReceived(stanza),
            started: (jid) => this.started(jid),
            ended: (reason, condition) => on.ended(reason, condition),
            uncertain: (ids) => this.markUncertain(ids),
        });
    }

    get state() {
        return this.session.state;
    }

    // --- log in and out -----------------------------------------------------------------------------

    login(jid, password) {
        this.session.login(jid, password);
    }

    loginAnonymously() {
        this.session.loginAnonymously(this.config.anonymousDomain);
    }

    resume() {
        this.session.resume();
        if (!this.me.anonymous && !this.rosterLoaded) {
            this.loadRoster(); // the callback for its answer went with the page before
        }
    }

    logout() {
        this.session.logout();
        this.forget();
    }

    forget() {
        this.store.clear();
        this.me = { jid: null, anonymous: false, show: '' };
        this.rosterLoaded = false;
        this.roster.clear();
        this.presence.clear();
        this.requests.clear();
        this.chats.clear();
    }

    started(jid) {
        const anonymous = Strophe.getDomainFromJid(jid) === this.config.anonymousDomain;
        if (this.me.jid && bare(this.me.jid) !== bare(jid)) {
            if (anonymous && this.me.anonymous) {
                this.on.notice('newGuest'); // the server gives a guest a new name each time
            } else {
                const { show } = this.me;
                this.forget();
                this.me.show = show;
            }
        }
        Object.assign(this.me, { jid, anonymous });
        this.rosterLoaded = false;
        this.presence.clear();
        this.save('me', 'presence');
        if (!anonymous) {
            this.loadRoster();
            this.session.iq($iq({ type: 'set' }).c('enable', { xmlns: NS.CARBONS }));
        }
        this.sendPresence();
        this.rooms.rejoinAll();
        this.on.changed('me');
    }

    // --- contacts -----------------------------------------------------------------------------------

    loadRoster() {
        this.session.iq($iq({ type: 'get' }).c('query', { xmlns: NS.ROSTER }), (result) => {
            if (result.getAttribute('type') !== 'result') {
                return;
            }
            this.roster.clear();
            this.takeRoster(result);
            this.rosterLoaded = true;
            this.save('me');
        });
    }

    takeRoster(iq) {
        for (const item of iq.getElementsByTagNameNS(NS.ROSTER, 'item')) {
            const jid = bare(item.getAttribute('jid'));
            const subscription = item.getAttribute('subscription');
            if (subscription === 'remove') {
                this.roster.delete(jid);
                this.presence.delete(jid);
            } else {
                this.roster.set(jid, { name: item.getAttribute('name') || '', subscription,
                    ask: item.getAttribute('ask') || '' });
            }
        }
        this.save('roster', 'presence');
        this.on.changed('contacts');
    }

    addContact(jid, name) {
        const query = $iq({ type: 'set' }).c('query', { xmlns: NS.ROSTER });
        query.c('item', name ? { jid, name } : { jid });
        this.session.iq(query, (result) => {
            if (result.getAttribute('type') === 'error') {
                this.on.notice('addFailed', { jid, error: errorOf(result) });
            }
        });
        this.session.send($pres({ to: jid, type: 'subscribe' }));
    }

    removeContact(jid) {
        this.session.iq($iq({ type: 'set' }).c('query', { xmlns: NS.ROSTER })
            .c('item', { jid, subscription: 'remove' }));
    }

    answerRequest(jid, accept) {
        this.requests.delete(jid);
        this.save('requests');
        this.session.send($pres({ to: jid, type: accept ? 'subscribed' : 'unsubscribed' }));
        const item = this.roster.get(jid);
        if (accept && !(item && (['to', 'both'].includes(item.subscription) || item.ask))) {
            this.session.send($pres({ to: jid, type: 'subscribe' }));
        }
        this.on.changed('contacts');
    }

    displayName(jid) {
        const item = this.roster.get(jid);
        const chat = this.chats.get(jid);
        return (item && item.name) || (chat && chat.name) || Strophe.getNodeFromJid(jid) || jid;
    }

    /** The best of a contact's presences: {show: '' | 'away' | 'dnd' | 'offline', status}. */
    presenceOf(jid) {
        let best = null;
        for (const presence of Object.values(this.presence.get(jid) || {})) {
            if (!best || presence.priority > best.priority ||
                (presence.priority === best.priority && rank(presence.show) < rank(best.show))) {
                best = presence;
            }
        }
        if (!best) {
            return { show: 'offline', status: '' };
        }
        const show = { chat: '', xa: 'away' }[best.show] ?? best.show;
        return { show, status: best.status };
    }

    setShow(show) {
        this.me.show = show;
        this.save('me');
        this.sendPresence();
        this.rooms.sendPresences();
    }

    sendPresence() {
        const presence = $pres();
        if (this.me.show) {
            presence.c('show').t(this.me.show).up();
        }
        this.session.send(presence);
    }

    // --- conversations ------------------------------------------------------------------------------

    openChat(jid) {
        if (!this.chats.has(jid)) {
            this.chats.set(jid, { id: jid, room: false, unread: 0, messages: [], draft: '' });
            this.saveChat(jid);
            this.on.changed('chats');
        }
        return this.chats.get(jid);
    }

    closeChat(jid) {
        const chat = this.chats.get(jid);
        if (chat && chat.room && chat.joined) {
            this.rooms.leave(chat);
        }
        this.chats.delete(jid);
        this.store.set(`chat.${jid}`, null);
        this.save('chats');
        this.on.changed('chats');
    }

    markRead(jid) {
        const chat = this.chats.get(jid);
        if (chat && chat.unread) {
            chat.unread = 0;
            this.saveChat(jid);
            this.on.changed('chats');
        }
    }

    setDraft(jid, draft) {
        const chat = this.chats.get(jid);
        if (chat && chat.draft !== draft) {
            chat.draft = draft;
            this.saveChat(jid);
        }
    }

    sendMessage(jid, text) {
        const body = cleanText(text);
        if (!body.trim()) {
            return;
        }
        const chat = this.openChat(jid);
        const id = newId();
        this.addMessage(chat, { id, mine: true, nick: chat.nick, body, at: Date.now(), state: 'sent' });
        this.transmit(chat, id, body);
    }

    /** Sends once more what the user wants to have sent once more. */
    retryMessage(jid, id) {
        const chat = this.chats.get(jid);
        const message = chat && chat.messages.find((candidate) => candidate.id === id);
        if (message && (message.state === 'uncertain' || message.state === 'failed')) {
            message.state = 'sent';
            message.error = null;
            this.saveChat(jid);
            this.transmit(chat, id, message.body);
            this.on.messages(chat, null);
        }
    }

    transmit(chat, id, body) {
        const message = $msg({ to: chat.id, type: chat.room ? 'groupchat' : 'chat', id });
        message.c('body').t(body).up();
        if (!chat.room) {
            message.c('request', { xmlns: NS.RECEIPTS }).up().c('active', { xmlns: NS.CHATSTATES }).up();
        }
        this.session.send(message);
    }

    /** Tells the other side that the user types, or stopped typing. */
    sendTyping(jid, isTyping) {
        const chat = this.chats.get(jid);
        if (chat && !chat.room && this.state === State.ONLINE && this.presenceOf(jid).show !== 'offline') {
            this.session.send($msg({ to: jid, type: 'chat' })
                .c(isTyping ? 'composing' : 'paused', { xmlns: NS.CHATSTATES }));
        }
    }

    isTyping(jid) {
        return this.typing.has(jid);
    }

    setTyping(jid, isTyping) {
        clearTimeout(this.typing.get(jid));
        const changed = this.typing.has(jid) !== isTyping;
        if (isTyping) {
            // A "paused" that never comes, because the other side went away, must not show for ever.
            this.typing.set(jid, setTimeout(() => this.setTyping(jid, false), 5 * TYPING_PAUSE));
        } else {
            this.typing.delete(jid);
        }
        if (changed) {
            this.on.changed('chats');
        }
    }

    addMessage(chat, message) {
        chat.messages.push(message);
        if (chat.messages.length > KEEP) {
            chat.messages.splice(0, chat.messages.length - KEEP);
        }
        if (!message.mine && !message.old) {
            chat.unread++;
        }
        this.toTop(chat);
        this.saveChat(chat.id);
        this.on.messages(chat, message);
        this.on.changed('chats');
    }

    /** The conversation used last comes first. */
    toTop(chat) {
        this.chats.delete(chat.id);
        this.chats = new Map([[chat.id, chat], ...this.chats]);
    }

    markUncertain(ids) {
        this.updateMessages((message) => message.mine && message.state === 'sent' && ids.includes(message.id),
            { state: 'uncertain' });
    }

    /** Changes all messages that match; true when there was one. */
    updateMessages(matches, change) {
        let found = false;
        for (const chat of this.chats.values()) {
            const hits = chat.messages.filter(matches);
            if (hits.length) {
                hits.forEach((message) => Object.assign(message, change));
                this.saveChat(chat.id);
                this.on.messages(chat, null);
                found = true;
            }
        }
        return found;
    }

    // --- what comes from the server -------------------------------------------------------------------

    stanzaReceived(stanza) {
        switch (stanza.nodeName) {
        case 'message':
            this.messageReceived(stanza);
            break;
        case 'presence':
            this.presenceReceived(stanza);
            break;
        case 'iq':
            this.iqReceived(stanza);
            break;
        }
    }

    iqReceived(iq) {
        const from = iq.getAttribute('from');
        const query = iq.firstElementChild;
        const answer = $iq({ type: 'result', id: iq.getAttribute('id') });
        if (from) {
            answer.attrs({ to: from });
        }
        const fromServer = !from || from === bare(this.me.jid) || from === Strophe.getDomainFromJid(this.me.jid);
        const type = iq.getAttribute('type');
        if (query && type === 'set' && query.namespaceURI === NS.ROSTER && fromServer) {
            this.takeRoster(iq);
        } else if (query && type === 'get' && query.namespaceURI === NS.DISCO_INFO) {
            answer.c('query', { xmlns: NS.DISCO_INFO })
                .c('identity', { category: 'client', type: 'web', name: 'mod_bosh' }).up();
            FEATURES.forEach((feature) => answer.c('feature', { var: feature }).up());
        } else if (!(query && type === 'get' && query.namespaceURI === NS.PING)) {
            answer.attrs({ type: 'error' }).c('error', { type: 'cancel' })
                .c('service-unavailable', { xmlns: NS.STANZAS });
        }
        this.session.send(answer);
    }

    presenceReceived(stanza) {
        const from = stanza.getAttribute('from') || this.me.jid;
        const type = stanza.getAttribute('type');
        const jid = bare(from);
        const chat = this.chats.get(jid);
        if (chat && chat.room) {
            this.rooms.presenceReceived(chat, stanza, Strophe.getResourceFromJid(from), type);
            return;
        }
        if (type === 'subscribe') {
            this.subscriptionRequested(jid);
        } else if (type === null || type === 'unavailable') {
            const resources = this.presence.get(jid) || {};
            const resource = Strophe.getResourceFromJid(from) || '';
            if (type === null) {
                resources[resource] = { show: showOf(stanza), status: childText(stanza, 'status'),
                    priority: Number.parseInt(childText(stanza, 'priority'), 10) || 0 };
            } else {
                delete resources[resource];
                this.setTyping(jid, false);
            }
            this.presence.set(jid, resources);
            this.save('presence');
            this.on.changed('contacts');
        }
    }

    subscriptionRequested(jid) {
        const item = this.roster.get(jid);
        if (item && (item.subscription === 'to' || item.ask === 'subscribe')) {
            this.answerRequest(jid, true); // we asked for this contact ourselves
            return;
        }
        this.requests.add(jid);
        this.save('requests');
        this.on.changed('contacts');
    }

    messageReceived(stanza) {
        const carbon = this.carbonOf(stanza);
        const message = carbon ? carbon.message : stanza;
        const sentByMe = Boolean(carbon && carbon.sent);
        const type = message.getAttribute('type');
        const from = message.getAttribute('from') || Strophe.getDomainFromJid(this.me.jid);
        const jid = bare(sentByMe ? message.getAttribute('to') : from);
        if (type === 'error') {
            this.messageRefused(message);
        } else if (type === 'groupchat') {
            const chat = this.chats.get(jid);
            if (chat && chat.room) {
                this.rooms.messageReceived(chat, from, message);
            }
        } else {
            this.chatMessage(jid, message, sentByMe, Boolean(carbon), delayOf(stanza) || delayOf(message));
        }
    }

    /** A copy of what another client of ours received or sent; only our own account may send those. */
    carbonOf(stanza) {
        if (stanza.getAttribute('from') && stanza.getAttribute('from') !== bare(this.me.jid)) {
            return null;
        }
        const wrapper = Array.from(stanza.children).find((child) => child.namespaceURI === NS.CARBONS);
        const forwarded = wrapper && wrapper.getElementsByTagNameNS(NS.FORWARD, 'forwarded')[0];
        const message = forwarded && Array.from(forwarded.children).find((child) => child.localName === 'message');
        return message ? { message, sent: wrapper.localName === 'sent' } : null;
    }

    chatMessage(jid, message, mine, isCarbon, delay) {
        const id = message.getAttribute('id') || newId();
        const received = message.getElementsByTagNameNS(NS.RECEIPTS, 'received')[0];
        if (received) {
            const receipt = received.getAttribute('id');
            this.updateMessages((candidate) => candidate.id === receipt && candidate.mine, { state: 'delivered' });
        }
        const state = Array.from(message.children).find((child) => child.namespaceURI === NS.CHATSTATES);
        const body = childText(message, 'body');
        if (state && !mine && !delay) {
            this.setTyping(jid, state.localName === 'composing');
        }
        if (!body) {
            return;
        }
        const chat = this.openChat(jid);
        const nick = chat.room ? Strophe.getResourceFromJid(message.getAttribute('from')) : undefined;
        this.addMessage(chat, { id, mine, nick, body, at: delay || Date.now(), delayed: Boolean(delay), state: '' });
        if (!mine && !isCarbon && message.getElementsByTagNameNS(NS.RECEIPTS, 'request').length &&
            this.mayAcknowledge(jid)) {
            this.session.send($msg({ to: message.getAttribute('from'), type: 'chat' })
                .c('received', { xmlns: NS.RECEIPTS, id }));
        }
    }

    /** A receipt tells that we are here: only for those who may know. */
    mayAcknowledge(jid) {
        const item = this.roster.get(jid);
        return (item && ['from', 'both'].includes(item.subscription)) ||
            this.openChat(jid).messages.some((message) => message.mine);
    }

    messageRefused(message) {
        const id = message.getAttribute('id');
        this.updateMessages((candidate) => candidate.id === id && candidate.mine,
            { state: 'failed', error: errorOf(message) });
    }

    // --- keeping --------------------------------------------------------------------------------------

    save(...what) {
        for (const key of what) {
            if (key === 'me') {
                this.store.set('me', { ...this.me, rosterLoaded: this.rosterLoaded });
            } else if (key === 'requests') {
                this.store.set('requests', [...this.requests]);
            } else if (key === 'chats') {
                this.store.set('chats', [...this.chats.keys()]);
            } else {
                this.store.set(key, [...this[key]]);
            }
        }
    }

    saveChat(jid) {
        this.store.set(`chat.${jid}`, this.chats.get(jid));
        this.save('chats');
    }

    trim(length) {
        for (const chat of this.chats.values()) {
            chat.messages.splice(0, Math.max(0, chat.messages.length - length));
            this.store.set(`chat.${chat.id}`, chat);
        }
    }
}
