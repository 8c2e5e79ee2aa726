// SPDX-License-Identifier: Apache-2.0
// Clients that live in a page: one Chromium, a context of its own for each user. BOSH_CHROMIUM says where it is.
// Each page has window.agent with login, attach, say, session, logout, and calls window.report(event, ...). It resumes
// by itself what its storage says was going on before a reload.

import { chromium } from 'playwright-core';
import { report, serve } from './agent.mjs';

const ARGS = ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
    '--disable-component-update', '--disable-sync'];

const browser = await chromium.launch({ executablePath: process.env.BOSH_CHROMIUM || '/usr/bin/chromium', headless: true,
    args: ARGS });
const pages = new Map();

async function open(user, url) {
    const context = await browser.newContext({ locale: 'en-GB', viewport: { width: 1000, height: 700 } });
    const page = await context.newPage();
    pages.set(user, page);
    page.on('pageerror', (error) => report(user, 'error', error.stack || error));
    page.on('console', (message) => console.error(`${user}: ${message.text().slice(0, 300)} ${message.location().url.slice(0, 100)}`));
    await page.exposeFunction('report', (event, ...args) => report(user, event, ...args));
    await page.goto(url);
    await page.waitForFunction(() => window.agent);
    return page;
}

const call = (page, name, args = []) => page.evaluate(([method, values]) => window.agent[method](...values), [name, args]);

await serve(async (user, command, args) => {
    let page = pages.get(user);
    switch (command) {
    case 'login':
    case 'attach':
        page = await open(user, args[0]);
        await call(page, command, args.slice(1));
        break;
    case 'reload':
        await page.reload();
        break;
    case 'session':
        report(user, 'session', ...await call(page, 'session'));
        break;
    case 'texts':
        report(user, 'texts', ...await call(page, 'texts'));
        break;
    case 'close':
        pages.delete(user);
        await page.context().close();
        report(user, 'closed');
        break;
    case 'say':
    case 'logout':
        await call(page, command, args);
        break;
    default:
        throw new Error(`no command ${command}`);
    }
});
await browser.close();
