// SPDX-License-Identifier: Apache-2.0
// The web chat page in Chromium, as its users use it: node page.mjs SCENARIO (see lib.mjs for settings).

import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { ROOMS, URL_OF_PAGE, main, numbered, password, until } from './lib.mjs';

const EVIL = '<img src=x onerror=alert(1)><script>alert(2)</script>&lt;b&gt; "\'';

/** alice and bob, logged in, seeing each other, with the conversation open on both sides. */
async function couple(browser, options = {}) {
    const alice = await browser.page('alice', options.alice);
    const bob = await browser.page('bob', options.bob);
    await alice.open();
    await bob.open();
    await alice.login();
    await bob.login();
    await alice.befriend(bob);
    await alice.openChat('bob');
    await bob.openChat('alice');
    return [alice, bob];
}

/** What this run of the scenario sent: conversations of earlier scenarios are not in a fresh page. */
async function bothHave(alice, bob, texts) {
    await alice.waitForText(texts.at(-1));
    await bob.waitForText(texts.at(-1));
    assert.deepEqual(await alice.texts(), texts);
    assert.deepEqual(await bob.texts(), texts);
}

async function chat(browser) {
    const [alice, bob] = await couple(browser);
    const all = [];
    for (const [from, to, texts] of [
        [alice, bob, numbered('from alice', 10)],
        [bob, alice, [...numbered('from bob', 10), EVIL, 'two\nlines', '你好,世界 😀']],
    ]) {
        for (const text of texts) {
            await from.send(text);
        }
        all.push(...texts);
        await to.waitForText(texts.at(-1));
    }
    await bothHave(alice, bob, all);
    assert.equal(await alice.page.$$eval('#messages img, #messages script, #messages b', (list) => list.length), 0,
        'text of others became markup');
    // Receipts: what alice sent is marked as delivered.
    await alice.page.waitForFunction(() => document.querySelectorAll('.msg.mine use[href="#i-checks"]').length === 10);
    await alice.shot('chat-desktop');

    // A presence that changes is seen, and a conversation that is not open counts what is unread.
    await bob.page.selectOption('#my-show', 'dnd');
    await alice.page.waitForSelector('#contacts .row[data-jid^="bob@"] .dot.dnd');
    await alice.page.press('#text', 'Escape');
    await alice.page.waitForSelector('#empty:not([hidden])');
    for (const text of numbered('unread', 3)) {
        await bob.send(text);
    }
    await alice.page.waitForFunction(() => document.querySelector('#chats .badge span')?.textContent === '3');
    assert.match(await alice.page.title(), /^\(3\) /);
    await alice.openChat('bob');
    await alice.page.waitForSelector('#chats .badge', { state: 'detached' });
    await alice.waitForText('unread 3');

    // Typing is shown, and no more after the message.
    await bob.page.type('#text', 'hm');
    await alice.page.waitForSelector('#chat-subtitle.typing');
    await bob.page.press('#text', 'Enter');
    await alice.waitForText('hm');
    await alice.page.waitForSelector('#chat-subtitle:not(.typing)');
}

async function csp(browser) {
    const alice = await browser.page('alice');
    const response = await alice.open();
    const policy = response.headers()['content-security-policy'] || '';
    assert.match(policy, /default-src 'none'/);
    assert.doesNotMatch(policy, /unsafe/);
    // The policy is really in force: what it forbids is stopped and reported.
    const before = alice.errors.length;
    await alice.page.evaluate(() => {
        const script = document.createElement('script');
        script.textContent = 'window.inlineRan = true';
        document.head.append(script);
    });
    assert.equal(await alice.page.evaluate(() => window.inlineRan), undefined);
    await until(() => alice.errors.slice(before).some((error) => error.startsWith('CSP violation: script-src')),
        'the violation is reported');
    alice.allow(/CSP violation: script-src|Content Security Policy/);
    // Every control can be named by a screen reader.
    await alice.login();
    await alice.menu('#new', 'Message somebody');
    await alice.page.fill('#ask-address', 'bob');
    await alice.page.press('#ask-address', 'Enter');
    await alice.page.waitForSelector('#chat:not([hidden])');
    const nameless = await alice.page.$$eval('button, input, select, textarea, a[href]', (controls) => controls
        .filter((control) => !(control.getAttribute('aria-label') || control.textContent.trim() ||
            control.labels?.length)).map((control) => control.outerHTML));
    assert.deepEqual(nameless, []);
}

/** The heart of it: reloads in the middle of a conversation. */
async function reload(browser) {
    const [alice, bob] = await couple(browser);
    await alice.send('before');
    await bob.waitForText('before');
    const sid = await alice.sid();
    assert.ok(sid);
    assert.equal(alice.logins(), 1);

    const fromBob = numbered('from bob', 60);
    const fromAlice = [];
    let sending = true;
    const bobSends = (async () => {
        for (const text of fromBob) {
            await bob.send(text);
        }
        sending = false;
    })();
    for (let i = 1; sending || i <= 6; i++) {
        // A message, and the reload in the same breath: it may be still queued, on its way, or answered.
        fromAlice.push(`from alice ${i}`);
        await alice.send(fromAlice.at(-1));
        await alice.page.waitForTimeout((i * 37) % 150);
        await alice.page.reload();
        await alice.page.waitForSelector('#chat:not([hidden])'); // the open conversation is open again
    }
    await bobSends;
    await alice.online();
    await alice.waitForText('from bob 60');
    await bob.waitForText(fromAlice.at(-1));
    assert.deepEqual(await alice.texts('.msg:not(.mine)'), fromBob, 'alice has each message once, in order');
    assert.deepEqual(await bob.texts('.msg:not(.mine)'), ['before', ...fromAlice], 'bob has each message once, in order');
    assert.deepEqual(await alice.texts('.msg.mine'), ['before', ...fromAlice], 'alice sees what she wrote');
    assert.equal(await alice.sid(), sid, 'still the same session');
    assert.equal(alice.logins(), 1, 'nothing logged in again');

    // A text that was not sent yet is still in the field, and the two go on chatting.
    await alice.page.fill('#text', 'a draft');
    await alice.page.reload();
    await alice.online();
    assert.equal(await alice.page.inputValue('#text'), 'a draft');
    await alice.page.press('#text', 'Enter');
    await bob.waitForText('a draft');
    await bob.send('and back');
    await alice.waitForText('and back');
    await alice.page.waitForSelector('#contacts .row[data-jid^="bob@"] .dot.online');
    assert.equal(await alice.sid(), sid);
}

/** The server has answered, and the answer never reaches the page: it must ask for it again. */
async function answer(browser) {
    const [alice, bob] = await couple(browser);
    const swallowed = [];
    await alice.page.route('**/http-bind', async (route) => {
        const response = await route.fetch({ timeout: 0 });
        const text = await response.text();
        if (text.includes('in the lost answer') && swallowed.length === 0) {
            swallowed.push(text); // the page's request stays open
        } else {
            await route.fulfill({ response });
        }
    });
    // The poll that is open now was not seen by the route; this ends it, and the next one is.
    await alice.send('first');
    await bob.waitForText('first');
    await alice.page.waitForSelector('.msg.mine use[href="#i-checks"]');
    await bob.send('in the lost answer');
    await until(() => swallowed.length === 1, 'the answer is lost');
    assert.deepEqual(await alice.texts('.msg:not(.mine)'), []);
    await alice.page.reload();
    await alice.waitForText('in the lost answer');
    await bob.send('after it');
    await alice.send('and so on');
    await alice.waitForText('after it');
    await bob.waitForText('and so on');
    assert.deepEqual(await alice.texts('.msg:not(.mine)'), ['in the lost answer', 'after it']);
    assert.deepEqual(await bob.texts('.msg:not(.mine)'), ['first', 'and so on']);
    assert.equal(alice.logins(), 1);
    await alice.page.unrouteAll({ behavior: 'ignoreErrors' });
}

/** The network goes away and comes back: the same session, nothing lost, nothing twice. */
async function network(browser) {
    const [alice, bob] = await couple(browser);
    alice.allow(/Failed to load resource: net::ERR_INTERNET_DISCONNECTED/);
    await alice.send('one');
    await bob.waitForText('one');
    const sid = await alice.sid();
    await alice.page.context().setOffline(true); // what is open stays open; the next request fails
    await alice.send('written without a network');
    await alice.state('reconnecting');
    await alice.page.waitForSelector('#banner.shown #retry:not([hidden])');
    await alice.shot('reconnecting');
    await bob.send('while alice is away');
    await alice.page.waitForSelector('.msg.mine use[href="#i-clock"]');
    await alice.page.context().setOffline(false);
    await alice.online();
    await bob.waitForText('written without a network');
    await alice.waitForText('while alice is away');
    assert.equal(await alice.sid(), sid);
    assert.equal(alice.logins(), 1);
    assert.deepEqual(await bob.texts('.msg:not(.mine)'), ['one', 'written without a network']);
    assert.deepEqual(await alice.texts('.msg:not(.mine)'), ['while alice is away']);
    await alice.page.waitForSelector('#banner:not(.shown)', { state: 'attached' });
}

/** Ends the session behind the page's back: a request far outside the window of rids. */
async function endSession(user) {
    const { sid, rid } = await user.page.evaluate(() => JSON.parse(sessionStorage.getItem('strophe-bosh-session')));
    const answer = await user.page.request.post(new URL('/http-bind', URL_OF_PAGE).href, {
        data: `<body rid='${rid + 1000}' sid='${sid}' xmlns='http://jabber.org/protocol/httpbind'/>`,
        headers: { 'Content-Type': 'text/xml' },
    });
    assert.match(await answer.text(), /item-not-found/);
}

/** The two chat while somebody restarts httpd again and again (test_browser.py does): nobody notices. */
async function restarts(browser) {
    const [alice, bob] = await couple(browser);
    const sids = [await alice.sid(), await bob.sid()];
    for (const user of [alice, bob]) {
        await user.page.evaluate(() => {
            window.bannerSeen = 0;
            new MutationObserver(() => {
                window.bannerSeen += document.querySelector('#banner').checkVisibility() ? 1 : 0;
            }).observe(document.querySelector('#banner'), { attributes: true, childList: true, subtree: true });
        });
    }
    const texts = [];
    // BOSH_UNTIL: a file that exists once there have been restarts enough.
    for (let i = 1; i <= 20 || !existsSync(process.env.BOSH_UNTIL || '/'); i++) {
        const [from, to] = i % 2 ? [alice, bob] : [bob, alice];
        texts.push(`round ${i}`);
        await from.send(texts.at(-1));
        await to.waitForText(texts.at(-1));
        await from.page.waitForTimeout(250);
    }
    assert.deepEqual((await alice.texts()).slice(-texts.length), texts);
    assert.deepEqual((await bob.texts()).slice(-texts.length), texts);
    assert.deepEqual([await alice.sid(), await bob.sid()], sids, 'still the same sessions');
    for (const user of [alice, bob]) {
        assert.equal(user.logins(), 1, 'nothing logged in again');
        assert.equal(await user.page.evaluate(() => window.bannerSeen), 0, 'no reconnect was shown');
    }
}

async function lost(browser) {
    const [alice, bob] = await couple(browser);
    await alice.send('first');
    await bob.waitForText('first');
    const sid = await alice.sid();

    // The password is still in memory: the page logs in again by itself.
    await endSession(alice);
    await until(async () => alice.logins() === 2, 'a new login');
    await alice.online();
    assert.notEqual(await alice.sid(), sid);
    await alice.page.waitForSelector('#contacts .row[data-jid^="bob@"] .dot.online');
    await alice.send('second');
    await bob.waitForText('second');
    assert.deepEqual(await bob.texts('.msg:not(.mine)'), ['first', 'second']);

    // After a reload it is not: the page asks, and has kept the conversation.
    await alice.page.reload();
    await alice.online();
    await endSession(alice);
    await alice.page.waitForSelector('#login:not([hidden])');
    assert.match(await alice.page.textContent('#login-error'), /session has ended/);
    assert.match(await alice.page.inputValue('#jid'), /^alice@/);
    await alice.shot('expired');
    await alice.page.fill('#password', password('alice'));
    await alice.page.press('#password', 'Enter');
    await alice.online();
    await alice.waitForText('second');
}

/** Not once a mouse. */
async function keyboard(browser) {
    const bob = await browser.page('bob');
    const alice = await browser.page('alice');
    const { page } = alice;
    const key = (...keys) => keys.reduce((before, one) => before.then(() => page.keyboard.press(one)), Promise.resolve());
    const focused = () => page.evaluate(() => {
        const element = document.activeElement;
        const style = getComputedStyle(element);
        return { id: element.id || element.dataset.key || element.textContent, tag: element.localName,
            ring: style.outlineStyle !== 'none' && parseFloat(style.outlineWidth) > 0 };
    });
    const tabTo = async (id) => {
        for (let i = 0; i < 12; i++) {
            const now = await focused();
            assert.ok(now.tag === 'body' || now.ring, `the focus is seen on ${now.id}`);
            if (now.id.startsWith(id)) {
                return;
            }
            await key('Tab');
        }
        assert.fail(`Tab does not reach ${id}`);
    };
    await bob.open();
    await bob.login();
    await alice.open();
    await page.waitForSelector('#login:not([hidden])');
    assert.equal((await focused()).id, 'jid');
    await page.keyboard.type('alice');
    await key('Tab');
    await page.keyboard.type(password('alice'));
    await key('Enter');
    await alice.online();

    // Add bob (a contact already when another scenario ran before: adding again does no harm).
    await tabTo('new');
    await key('Enter');
    assert.match((await focused()).id, /Add a contact/);
    await key('ArrowDown', 'ArrowDown', 'ArrowUp', 'Home', 'Enter');
    await page.waitForSelector('dialog[open]');
    assert.equal((await focused()).id, 'ask-address');
    await key('Escape');
    await page.waitForSelector('dialog', { state: 'detached' });
    await alice.befriend(bob);

    // Into the list, through it, open, write, close.
    await page.focus('#my-show');
    await tabTo('contact:bob@');
    await key('End', 'Home', 'ArrowDown', 'ArrowUp', 'Enter');
    await page.waitForSelector('#chat:not([hidden])');
    assert.equal((await focused()).id, 'text');
    await page.keyboard.type('typed by hand');
    await key('Shift+Enter');
    await page.keyboard.type('in two lines');
    await key('Enter');
    await bob.openChat('alice');
    await bob.waitForText('typed by hand\nin two lines');
    await key('Shift+Tab');
    assert.equal((await focused()).id, 'log'); // can be scrolled with the keys
    await key('Escape');
    await page.waitForSelector('#empty:not([hidden])');
    assert.match((await focused()).id, /^chat:bob@/);
    await key('ArrowDown');
    assert.match((await focused()).id, /^contact:bob@/);

    // And out.
    await page.focus('#new');
    await tabTo('logout');
    await key('Enter');
    await page.waitForSelector('dialog[open]');
    await tabTo('Log out');
    await key('Enter');
    await page.waitForSelector('#login:not([hidden])');
    assert.equal((await focused()).id, 'jid');
}

/** 360 pixels wide, touch, dark. */
async function phone(browser) {
    const size = { viewport: { width: 360, height: 740 }, deviceScaleFactor: 2, hasTouch: true, isMobile: true };
    const fits = async (user) => assert.ok(await user.page.evaluate(() =>
        document.documentElement.scrollWidth <= window.innerWidth && window.innerWidth === 360), 'no sideways scrolling');
    const alice = await browser.page('alice', { ...size, colorScheme: 'dark' });
    const bob = await browser.page('bob');
    await alice.open();
    await fits(alice);
    await alice.shot('phone-login');
    await bob.open();
    await bob.login();
    await alice.login();
    await alice.befriend(bob);
    await bob.openChat('alice');
    await bob.send('a message with one very long word: ' + 'x'.repeat(120));
    await alice.page.waitForSelector('#chats .badge');
    await fits(alice);
    await alice.shot('phone-list');
    assert.ok(await alice.page.isHidden('#chat'), 'one pane at a time');
    await alice.page.tap('#chats .row');
    await alice.page.waitForSelector('#chat:not([hidden])');
    assert.ok(await alice.page.isHidden('#sidebar'));
    await alice.send('and an answer');
    await bob.waitForText('and an answer');
    await fits(alice);
    await alice.shot('phone-chat');
    await alice.page.tap('#back');
    await alice.page.waitForSelector('#sidebar', { state: 'visible' });
    const small = await alice.page.$$eval('button', (buttons) => buttons.filter((button) => {
        const box = button.getBoundingClientRect();
        return box.width > 0 && (box.height < 24 || box.width < 24);
    }).map((button) => button.outerHTML));
    assert.deepEqual(small, [], 'large enough for a finger');
}

/** A guest: the session that nothing else than BOSH can keep over a reload. */
async function guest(browser) {
    const alice = await browser.page('alice');
    const visitor = await browser.page('guest', { viewport: { width: 900, height: 700 } });
    await alice.open();
    await alice.login();
    await visitor.open();
    await visitor.page.click('#guest');
    await visitor.online();
    const sid = await visitor.sid();
    const room = `lobby-${Date.now()}`;
    for (const user of [alice, visitor]) {
        await user.menu('#new', 'Join a chat room');
        await user.page.fill('#ask-room', room);
        await user.page.press('#ask-nick', 'Enter');
        await user.page.waitForFunction((name) => document.querySelector('#chat-title')?.textContent === name, room);
        await user.page.waitForFunction(() => !/not in this room/.test(document.querySelector('#chat-subtitle').textContent));
    }
    await alice.page.waitForFunction(() => /^2 people/.test(document.querySelector('#chat-subtitle').textContent));
    await visitor.send('hello from a guest');
    await alice.waitForText('hello from a guest');
    await visitor.page.reload();
    await alice.send('welcome');
    await visitor.waitForText('welcome');
    await visitor.online();
    assert.deepEqual(await visitor.texts(), ['hello from a guest', 'welcome']);
    await visitor.page.waitForFunction(() => /^2 people/.test(document.querySelector('#chat-subtitle').textContent));
    assert.equal(await visitor.sid(), sid);
    assert.equal(visitor.logins(), 1);
    await alice.shot('room');
    await visitor.menu('#more', 'Leave room');
    await alice.page.waitForFunction(() => /Only you/.test(document.querySelector('#chat-subtitle').textContent));

    // One to one with somebody who is no contact.
    await visitor.menu('#new', 'Message somebody');
    await visitor.page.fill('#ask-address', 'alice');
    await visitor.page.press('#ask-address', 'Enter');
    await visitor.send('may I ask you something?');
    await alice.page.waitForSelector('#chats .row.unread');
    await alice.page.click('#chats .row.unread');
    await alice.waitForText('may I ask you something?');
    await alice.send('of course');
    await visitor.waitForText('of course');
}

async function chinese(browser) {
    const alice = await browser.page('alice', { locale: 'zh-CN' });
    await alice.open();
    await alice.page.waitForSelector('#login:not([hidden])');
    assert.equal(await alice.page.getAttribute('html', 'lang'), 'zh-CN');
    assert.equal(await alice.page.textContent('#login-button'), '登录');
    await alice.shot('chinese-login');
    await alice.login();
    assert.equal(await alice.page.textContent('#contacts-title'), '联系人');
    assert.equal(await alice.page.getAttribute('#logout', 'aria-label'), '退出登录');
    await alice.shot('chinese');
    // No text was forgotten in either language.
    const missing = await alice.page.evaluate(() => [...document.querySelectorAll('[data-i18n]')]
        .filter((element) => !element.textContent).map((element) => element.dataset.i18n));
    assert.deepEqual(missing, []);
    // ?lang= goes before the browser's language, and changing it is a reload like any other.
    const sid = await alice.sid();
    await alice.open('?lang=en');
    await alice.online();
    assert.equal(await alice.page.getAttribute('html', 'lang'), 'en');
    assert.equal(await alice.page.textContent('#contacts-title'), 'Contacts');
    assert.equal(await alice.sid(), sid);
    const tables = await alice.page.evaluate(async () => {
        const source = await (await fetch('i18n.js')).text();
        const keys = (part) => [...part.matchAll(/^ {8}'?([\w-]+)'?:/gm)].map((match) => match[1]);
        const [, en, zh] = source.match(/\n {4}en: \{\n(.*?)\n {4}\},\n {4}zh: \{\n(.*?)\n {4}\},/s);
        return [keys(en), keys(zh)];
    });
    assert.ok(tables[0].length > 50);
    assert.deepEqual(tables[0], tables[1], 'the same texts in both languages, in the same order');
}

async function logout(browser) {
    const [alice, bob] = await couple(browser);
    await alice.send('bye');
    await bob.waitForText('bye');
    await alice.page.click('#logout');
    await alice.page.click('dialog .primary');
    await alice.page.waitForSelector('#login:not([hidden])');
    await until(() => alice.requests.some((body) => /type="terminate"/.test(body)), 'the session is terminated');
    await bob.page.waitForSelector('#contacts .row[data-jid^="alice@"] .dot.offline');
    const left = await alice.page.evaluate(() => Object.keys(sessionStorage).filter((key) => key !== 'im.active'));
    assert.deepEqual(left, [], 'nothing is stored any more');
    assert.equal(await alice.page.evaluate(() => document.querySelectorAll('#messages .msg').length), 0);
    await alice.page.reload();
    await alice.page.waitForSelector('#login:not([hidden])');
    assert.equal(await alice.page.textContent('#login-error'), '');
    assert.equal(alice.logins(), 1);

    // What comes while nobody is there is delivered at the next login, marked as late.
    await bob.send('for later');
    await alice.login();
    await alice.page.waitForSelector('#chats .row.unread');
    await alice.page.click('#chats .row.unread');
    await alice.waitForText('for later');
    await alice.page.waitForSelector('.msg .delayed');
    await alice.shot('delayed');
}

/** In the middle of a login the server gives empty answers, as when it restarts: each real one needs a poll. */
async function restarted(browser) {
    const alice = await browser.page('alice');
    let owed = null;
    let polls = 0;
    await alice.open();
    await alice.page.route('**/http-bind', async (route) => {
        const sent = route.request().postData();
        if (owed) {
            const body = owed;
            owed = null;
            polls++;
            assert.match(sent, /\/>$/, 'a poll has no payload');
            route.fetch({ timeout: 0 }).catch(() => {}); // the server counts it, too, and holds it
            await route.fulfill({ body, contentType: 'text/xml' });
        } else if (/<auth |<response |:restart=|<bind /.test(sent)) {
            owed = await (await route.fetch({ timeout: 0 })).text();
            await route.fulfill({ body: "<body xmlns='http://jabber.org/protocol/httpbind'/>", contentType: 'text/xml' });
        } else {
            await route.continue();
        }
    });
    await alice.login();
    assert.ok(polls >= 4, `${polls} of the answers were late`);
    assert.equal(alice.logins(), 1);
    await alice.page.unrouteAll({ behavior: 'ignoreErrors' });
}

async function errors(browser) {
    const alice = await browser.page('alice');
    const says = (pattern) => alice.page.waitForFunction((source) =>
        new RegExp(source).test(document.querySelector('#login-error').textContent), pattern.source);
    await alice.open();
    await alice.page.fill('#jid', 'not an address');
    await alice.page.press('#jid', 'Enter');
    await says(/not an address/);
    await alice.page.fill('#jid', 'alice');
    await alice.page.press('#jid', 'Enter');
    await says(/Enter a password/);
    await alice.page.fill('#password', 'wrong');
    await alice.page.press('#password', 'Enter');
    await says(/Wrong user name or password/);
    await alice.shot('wrong-password');
    await alice.page.fill('#jid', 'alice@unknown.example');
    await alice.page.fill('#password', 'x');
    await alice.page.press('#password', 'Enter');
    await says(/does not know the domain unknown.example/);
    await alice.page.fill('#jid', 'alice');
    await alice.login();

    // A message to nobody comes back, and says so.
    await alice.menu('#new', 'Message somebody');
    await alice.page.fill('#ask-address', `nobody@${ROOMS.replace(/^[^.]*\./, '')}`);
    await alice.page.press('#ask-address', 'Enter');
    await alice.send('is there anybody?');
    await alice.page.waitForFunction(() => /Nobody takes/.test(document.querySelector('.trouble')?.textContent));
    await alice.shot('not-delivered');

    // The password is in memory only.
    const stored = await alice.page.evaluate(() => JSON.stringify(sessionStorage) + JSON.stringify(localStorage) +
        document.cookie + document.documentElement.outerHTML + document.querySelector('#password').value);
    assert.ok(stored.includes('is there anybody?'));
    assert.ok(!stored.includes(password('alice')) || password('alice') === 'alice');
}

/** A duplicated tab gets a copy of the storage; it must not break the session of the first. */
async function twins(browser) {
    const alice = await browser.page('alice');
    await alice.open();
    await alice.login();
    const sid = await alice.sid();
    const [page] = await Promise.all([alice.page.waitForEvent('popup'), alice.page.evaluate(() => {
        window.open(location.href);
    })]);
    const twin = await browser.watch(page, 'twin');
    await page.waitForSelector('#login:not([hidden])');
    assert.equal(await twin.sid(), null);
    await page.close();
    await alice.page.reload();
    await alice.online();
    assert.equal(await alice.sid(), sid);
    assert.equal(alice.logins(), 1);
}

/** Over http on a name that is not localhost browsers have no crypto.subtle: no SCRAM, but PLAIN works. */
async function insecure(browser) {
    const alice = await browser.page('alice');
    const url = new URL(URL_OF_PAGE);
    url.hostname = 'chat.test';
    await alice.page.goto(url.href);
    assert.equal(await alice.page.evaluate(() => window.isSecureContext), false);
    await alice.login();
    assert.ok(alice.requests.some((body) => /mechanism="PLAIN"/.test(body)));
    alice.allow(/Cross-Origin-Opener-Policy header has been ignored/);
    await alice.page.reload();
    await alice.online();
    assert.equal(alice.logins(), 1);
}

await main({ chat, csp, reload, answer, network, lost, keyboard, phone, guest, chinese, logout, errors, twins, insecure,
    restarted, restarts },
    { insecure: ['--host-resolver-rules=MAP chat.test 127.0.0.1'] });
