/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The web chat page: puts the parts together.
 *
 *   config.js -> im.js -> sidebar.js, conversation.js -> client.js -> session.js -> Strophe.js
 *                          (what is seen)                 (what is known)  (what is sent)
 */

import config from './config.js';
import { Client, State } from './client.js';
import { Conversation } from './conversation.js';
import { Sidebar } from './sidebar.js';
import { Store } from './store.js';
import { announce, ask, byId, toast } from './dom.js';
import { bare, parseAddress } from './stanza.js';
import { has, lang, reason, t, translateDocument } from './i18n.js';
import { newId } from './session.js';

/* global Strophe */

Strophe.setLogLevel(Strophe.LogLevel.FATAL); // the page itself tells what is wrong

const store = new Store(sessionStorage);
const client = new Client(config, store, {
    changed: () => redraw(),
    messages: (chat, added) => messagesChanged(chat, added),
    state: (state, detail) => stateChanged(state, detail),
    ended: (reason, condition) => sessionEnded(reason, condition),
    notice: (key, values = {}) => toast(t(key, { ...values, reason: values.error ? reason(values.error) : '' })),
});
const conversation = new Conversation(client, () => closeConversation());
const sidebar = new Sidebar(client, config, (jid, focus) => openConversation(jid, focus));
let tick = null;
let wasLost = false;

// --- which part of the page is seen ---------------------------------------------------------------------

function showLogin(error) {
    byId('app').hidden = true;
    byId('login').hidden = false;
    byId('login-error').textContent = error || '';
    setBusy(false);
    document.title = t('appName');
    const jid = byId('jid');
    if (!jid.value && client.me.jid && !client.me.anonymous) {
        jid.value = bare(client.me.jid);
    }
    byId('password').value = '';
    (jid.value ? byId('password') : jid).focus();
}

function showApp() {
    if (byId('app').hidden) {
        byId('login').hidden = true;
        byId('app').hidden = false;
        byId('password').value = '';
        openConversation(store.get('active'), true);
        if (!conversation.jid) {
            queueMicrotask(() => sidebar.focus()); // when the lists are drawn
        }
    }
}

function setBusy(busy) {
    for (const element of byId('login').querySelectorAll('input, button')) {
        element.disabled = busy;
    }
    byId('login-button').textContent = t(busy ? 'loggingIn' : 'logIn');
}

/** On a narrow screen one of list and conversation is seen, on a wide one both. */
function openConversation(jid, focus) {
    if (jid && (client.chats.has(jid) || client.me.jid)) {
        client.openChat(jid);
    }
    conversation.show(jid && client.chats.has(jid) ? jid : null, focus || matchMedia('(hover: hover)').matches);
    sidebar.active = conversation.jid;
    document.body.dataset.view = conversation.jid ? 'chat' : 'list';
    store.set('active', conversation.jid);
    markSeen();
    redraw();
}

function closeConversation() {
    const jid = conversation.jid;
    openConversation(null, false);
    sidebar.setTabStop(jid ? `chat:${jid}` : null);
    sidebar.focus();
}

function markSeen() {
    if (conversation.jid && !document.hidden) {
        client.markRead(conversation.jid);
    }
}

let redrawing = false;

/** Draws once however many stanzas one answer of the server had. */
function redraw() {
    if (!redrawing) {
        redrawing = true;
        queueMicrotask(() => {
            redrawing = false;
            drawNow();
        });
    }
}

function drawNow() {
    if (byId('app').hidden) {
        return;
    }
    markSeen();
    sidebar.draw();
    conversation.drawHeader();
    const unread = [...client.chats.values()].reduce((sum, chat) => sum + chat.unread, 0);
    document.title = unread ? `(${unread}) ${t('appName')}` : t('appName');
}

function messagesChanged(chat, added) {
    conversation.update(chat, added);
    if (added && !added.mine && !added.old && chat.id !== conversation.jid) {
        announce(t('newFrom', { name: client.displayName(chat.id) }));
    }
}

// --- the connection --------------------------------------------------------------------------------------

function stateChanged(state, detail) {
    clearInterval(tick);
    document.body.dataset.state = state;
    if (state === State.ONLINE) {
        showApp();
        if (wasLost) {
            toast(t('backOnline'));
        }
        wasLost = false;
        banner('');
    } else if (state === State.CONNECTING) {
        banner(t(detail.resuming ? 'resuming' : 'connecting'));
    } else if (state === State.RECONNECTING) {
        wasLost = true;
        const draw = () => {
            const seconds = Math.ceil((detail.until - Date.now()) / 1000);
            banner(!navigator.onLine ? t('noNetwork') : seconds > 1 ?
                t('reconnectingIn', { n: detail.attempt, s: seconds }) : t('reconnecting', { n: detail.attempt }), true);
        };
        draw();
        tick = setInterval(draw, 1000);
    } else {
        wasLost = false;
        banner('');
    }
    conversation.connectionChanged();
    redraw();
}

function banner(text, retry = false) {
    const box = byId('banner-text');
    if (box.textContent !== text) {
        box.textContent = text;
    }
    byId('banner').classList.toggle('shown', text !== '');
    byId('retry').hidden = !retry;
}

function sessionEnded(reason, condition) {
    if (reason === 'expired') {
        showLogin(t('expired'));
        return;
    }
    const domain = bare(byId('jid').value || client.me.jid || config.domain).split('@').pop();
    const key = condition === 'not-authorized' && !window.isSecureContext ? 'insecure' : condition;
    showLogin(has(key) ? t(key, { domain, url: config.boshUrl }) : t('otherError', { condition }));
}

// --- log in and out ----------------------------------------------------------------------------------------

byId('login-form').addEventListener('submit', (event) => {
    event.preventDefault();
    const jid = parseAddress(byId('jid').value, config.domain);
    const password = byId('password').value;
    const error = !jid ? t('badAddress') : !password ? t('needPassword') : '';
    byId('login-error').textContent = error;
    if (error) {
        byId(jid ? 'password' : 'jid').focus();
        return;
    }
    setBusy(true);
    client.login(jid, password);
});

byId('guest').addEventListener('click', () => {
    byId('login-error').textContent = '';
    setBusy(true);
    client.loginAnonymously();
});

byId('logout').addEventListener('click', async () => {
    if (await ask({ title: t('logOut'), text: t('logOutAsk'), ok: t('logOut') })) {
        byId('jid').value = '';
        client.logout();
        conversation.show(null, false);
        showLogin('');
    }
});

byId('retry').addEventListener('click', () => client.session.retryNow());

// --- keys, and coming back to the page -------------------------------------------------------------------

document.addEventListener('keydown', (event) => {
    if (event.key === 'Escape' && !event.isComposing && conversation.jid && !event.target.matches('select') &&
        !document.querySelector('dialog[open]')) {
        closeConversation();
    }
});

document.addEventListener('visibilitychange', () => redraw());

/**
 * A tab that the browser duplicates gets a copy of sessionStorage, and two pages in one session would break
 * it. So a page holds a lock named in its storage; who finds it taken starts afresh.
 */
async function isOnlyPage() {
    const name = store.get('tab') || newId();
    store.set('tab', name);
    if (!navigator.locks) {
        return true;
    }
    const controller = new AbortController();
    const timer = setTimeout(() => controller.abort(), 1500); // the page before the reload may be just ending
    try {
        await new Promise((resolve, reject) => {
            navigator.locks.request(`im-tab-${name}`, { signal: controller.signal }, () => {
                resolve();
                return new Promise(() => {}); // held for the life of the page
            }).catch(reject);
        });
        return true;
    } catch {
        return false;
    } finally {
        clearTimeout(timer);
    }
}

async function start() {
    translateDocument();
    byId('other-language').href = lang === 'zh' ? '?lang=en' : '?lang=zh';
    byId('other-language').lang = lang === 'zh' ? 'en' : 'zh-CN';
    byId('guest-part').hidden = !config.anonymousDomain;
    if (!await isOnlyPage()) {
        client.logout();
        await isOnlyPage();
    }
    if (client.session.canResume()) {
        showApp();
        client.resume();
    } else {
        showLogin(client.me.jid ? t('expired') : '');
    }
}

start();
