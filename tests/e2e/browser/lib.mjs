// SPDX-License-Identifier: Apache-2.0
// What the browser scenarios share: one Chromium, watched pages, and the steps of a user.
//
// Settings come from the environment (tests/e2e/test_browser.py sets them; by hand, with `make run` going:
// BOSH_URL=http://localhost:8080/ BOSH_ALICE=alice BOSH_BOB=bob node tests/e2e/browser/page.mjs chat):
//   BOSH_URL         the page
//   BOSH_ALICE, BOSH_BOB, ...   passwords of the users
//   BOSH_ROOMS       domain of the chat rooms
//   BOSH_CHROMIUM    the browser (default /usr/bin/chromium)
//   BOSH_SHOTS       a directory for screenshots (default: none are made)
//   BOSH_WAIT        milliseconds after which something that should happen has not (default 15000)
//
// package.json has playwright-core 1.61: the last line of releases that runs on Node 18, which is Debian 12's.

import assert from 'node:assert/strict';
import path from 'node:path';
import { chromium } from 'playwright-core';

export const URL_OF_PAGE = process.env.BOSH_URL || 'http://localhost:8080/';
export const ROOMS = process.env.BOSH_ROOMS || 'conference.localhost';
export const WAIT = Number(process.env.BOSH_WAIT || 15000);

const SESSION_KEY = 'strophe-bosh-session';
const ARGS = ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
    '--disable-component-update', '--disable-sync'];

export function password(user) {
    return process.env[`BOSH_${user.toUpperCase()}`] || user;
}

/** A browser with its own profile directory, and the pages opened in it. */
export class Browser {
    static async start(extraArgs = []) {
        const browser = new Browser();
        browser.chromium = await chromium.launch({
            executablePath: process.env.BOSH_CHROMIUM || '/usr/bin/chromium',
            headless: true,
            args: [...ARGS, ...extraArgs],
        });
        browser.pages = [];
        return browser;
    }

    /** A page in a context (cookies, storage) of its own. */
    async page(name, options = {}) {
        const context = await this.chromium.newContext({ locale: 'en-GB', viewport: { width: 1100, height: 760 },
            ...options });
        context.setDefaultTimeout(WAIT);
        return this.watch(await context.newPage(), name);
    }

    async watch(page, name) {
        const user = new User(page, name);
        this.pages.push(user);
        await user.watch();
        return user;
    }

    /** Fails when any page had an error that its scenario did not announce. */
    check() {
        for (const user of this.pages) {
            const bad = user.errors.filter((error) => !user.allowed.some((pattern) => pattern.test(error)));
            assert.deepEqual(bad, [], `${user.name}: errors of the page`);
        }
    }

    /** Ends the sessions as well: the next scenario shall not meet their users as ghosts. */
    async close() {
        for (const user of this.pages) {
            await user.leave().catch((error) => {
                process.exitCode = 1;
                console.error(`${user.name}: ${error}`);
            });
        }
        await this.chromium.close();
    }
}

/** A page with its user, and what it sent. */
export class User {
    constructor(page, name) {
        this.page = page;
        this.name = name;
        this.errors = [];
        this.allowed = [];
        this.requests = []; // bodies of the BOSH requests
    }

    async watch() {
        const { page } = this;
        page.on('console', (message) => {
            if (['error', 'warning'].includes(message.type())) {
                this.errors.push(`console ${message.type()}: ${message.text()} ${message.location().url}`);
            }
        });
        page.on('pageerror', (error) => this.errors.push(`exception: ${error.stack || error}`));
        page.on('dialog', (dialog) => {
            this.errors.push(`a script opened a dialog: ${dialog.message()}`);
            dialog.dismiss();
        });
        page.on('request', (request) => {
            if (request.method() === 'POST') {
                this.requests.push(request.postData() || '');
            }
        });
        await page.exposeFunction('reportViolation', (text) => this.errors.push(`CSP violation: ${text}`));
        await page.addInitScript(() => {
            document.addEventListener('securitypolicyviolation', (event) => {
                window.reportViolation(`${event.violatedDirective} ${event.blockedURI} ${event.sample}`);
            });
        });
    }

    /** From now on errors that match are part of the scenario. */
    allow(pattern) {
        this.allowed.push(pattern);
    }

    /** How many sessions this page asked for: creation requests have no sid. */
    logins() {
        return this.requests.filter((body) => /^<body\b/.test(body) && !/\ssid=/.test(body.split('>')[0])).length;
    }

    sid() {
        return this.page.evaluate((key) => JSON.parse(sessionStorage.getItem(key))?.sid ?? null, SESSION_KEY);
    }

    async open(query = '') {
        const response = await this.page.goto(URL_OF_PAGE + query);
        assert.equal(response.status(), 200);
        return response;
    }

    async login(user = this.name) {
        const { page } = this;
        await page.fill('#jid', user);
        await page.fill('#password', password(user));
        await page.press('#password', 'Enter');
        await this.online();
    }

    async online() {
        await this.page.waitForSelector('body[data-state="online"] #app:not([hidden])');
    }

    state(value) {
        return this.page.waitForSelector(`body[data-state="${value}"]`);
    }

    async menu(button, label) {
        await this.page.click(button);
        await this.page.click(`.menu:not([hidden]) .item:has-text("${label}")`);
    }

    async addContact(address) {
        await this.menu('#new', 'Add a contact');
        await this.page.fill('#ask-address', address);
        await this.page.press('#ask-address', 'Enter');
    }

    /** Makes the two see each other's presence, whatever was before. */
    async befriend(other) {
        const row = `#contacts .row[data-jid^="${other.name}@"]`;
        if (!await this.page.$(row)) {
            await this.addContact(other.name);
            await other.page.click('.request .primary');
        }
        await this.page.waitForSelector(`${row} .dot:not(.offline)`);
        await other.page.waitForSelector(`#contacts .row[data-jid^="${this.name}@"] .dot:not(.offline)`);
    }

    async openChat(name) {
        const row = this.page.locator(`#contacts .row[data-jid^="${name}@"], #chats .row[data-jid^="${name}@"]`);
        await row.first().click();
        await this.page.waitForSelector('#chat:not([hidden])');
    }

    async send(text) {
        await this.page.fill('#text', text);
        await this.page.press('#text', 'Enter');
    }

    /** The texts of the conversation that is open. */
    texts(selector = '.msg') {
        return this.page.$$eval(`#messages ${selector} .body`, (bodies) => bodies.map((body) => body.textContent));
    }

    async waitForText(text) {
        await this.page.waitForFunction((wanted) => [...document.querySelectorAll('#messages .msg .body')]
            .some((body) => body.textContent === wanted), text);
    }

    /** Closes the page and ends its session, from outside. */
    async leave() {
        if (this.page.isClosed()) {
            return;
        }
        await this.page.context().setOffline(false);
        // A document of the same origin without scripts: it sees the storage, and no request of the page's
        // own can come in between.
        await this.page.goto(new URL('favicon.svg', this.page.url()).href);
        const saved = await this.page.evaluate((key) => JSON.parse(sessionStorage.getItem(key)), SESSION_KEY);
        if (saved) {
            await this.terminate(saved);
        }
    }

    /**
     * Until the server has heard it. The page's last request may never have left the browser: then the rid after
     * it waits behind a gap, and only one far outside the window ends the session at once.
     */
    async terminate({ sid, rid }) {
        let failure;
        for (const next of [rid, rid, rid + 1000, rid + 1000]) {
            try {
                const answer = await this.page.request.post(new URL('/http-bind', URL_OF_PAGE).href, {
                    timeout: WAIT / 5,
                    headers: { 'Content-Type': 'text/xml' },
                    data: `<body rid='${next}' sid='${sid}' type='terminate' ` +
                        `xmlns='http://jabber.org/protocol/httpbind'/>`,
                });
                if (answer.ok() && !(await answer.text()).includes("type='error'")) {
                    return;
                }
                failure = new Error(`HTTP ${answer.status()}`);
            } catch (error) {
                failure = error;
            }
        }
        throw failure;
    }

    async shot(name) {
        if (process.env.BOSH_SHOTS) {
            await this.page.screenshot({ path: path.join(process.env.BOSH_SHOTS, `${name}.png`) });
        }
    }
}

export function numbered(prefix, n, from = 1) {
    return Array.from({ length: n }, (_, i) => `${prefix} ${i + from}`);
}

/** Waits for a condition in this process. */
export async function until(condition, what) {
    const deadline = Date.now() + WAIT;
    while (!await condition()) {
        if (Date.now() > deadline) {
            throw new Error(`not within ${WAIT} ms: ${what}`);
        }
        await new Promise((resolve) => {
            setTimeout(resolve, 25);
        });
    }
}

/** Runs the scenario named on the command line; exit status 0 only when all of it held. */
export async function main(scenarios, browserArgs = {}) {
    const name = process.argv[2];
    if (!Object.hasOwn(scenarios, name)) {
        console.error(`usage: node ${path.basename(process.argv[1])} ${Object.keys(scenarios).join('|')}`);
        process.exit(2);
    }
    const browser = await Browser.start(browserArgs[name] || []);
    try {
        await scenarios[name](browser);
        browser.check();
        console.log(`ok ${name}`);
    } catch (error) {
        process.exitCode = 1;
        console.error(`FAILED ${name}: ${error.stack || error}`);
        for (const user of browser.pages) {
            console.error(`--- ${user.name}: ${user.errors.join('\n    ') || 'no errors of the page'}`);
            if (!user.page.isClosed()) {
                console.error(await user.page.evaluate(() => document.body.innerText).catch(() => '(no text)'));
                await user.shot(`failed-${name}-${user.name}`).catch(() => {});
            }
        }
    } finally {
        await browser.close();
    }
}
