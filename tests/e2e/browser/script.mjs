// SPDX-License-Identifier: Apache-2.0
// Script syntax (XEP-0252) in Chromium: a page of one origin, the endpoint (BOSH_ENDPOINT) at another, and
// nothing between them but script elements (see lib.mjs).

import assert from 'node:assert/strict';
import { URL_OF_PAGE, main, password } from './lib.mjs';

const ENDPOINT = process.env.BOSH_ENDPOINT;

const TEXTS = ['hello', '<&>"\' 你好 😀', '");alert(1)//', '\\', '</script><script>alert(1)</script>', ']]>',
    'line\u2028ends\u2029\nand\ttabs', '\u200e\u00ad\ufeff\u{e0001}', 'long '.repeat(1000)];

async function visit(browser, url) {
    const user = await browser.page('script');
    const seen = [];
    user.page.on('request', (request) => {
        if (request.url().startsWith(ENDPOINT)) {
            seen.push(`${request.method()} ${request.resourceType()}`);
        }
    });
    await user.page.goto(new URL('script.html', url).href);
    assert.notEqual(new URL(ENDPOINT).origin, await user.page.evaluate(() => window.origin));
    return [user, seen];
}

function chat(user) {
    return user.page.evaluate(([url, alice, texts]) => window.chat(url, alice, texts),
        [ENDPOINT, ['alice@localhost', password('alice')], TEXTS]);
}

/** Log in, a message of each kind to oneself and back, log out. */
async function talk(browser) {
    const [user, seen] = await visit(browser, URL_OF_PAGE);
    const result = await chat(user);
    assert.deepEqual(result, { got: TEXTS, end: 'ended' });
    assert.deepEqual([...new Set(seen)], ['GET script']);
    assert.ok(seen.length > 15, `${seen.length} requests`);
}

/** The same page of an origin that is not in BoshAllowOrigin, known and not known by its Referer. */
async function stranger(browser) {
    const url = new URL(URL_OF_PAGE);
    url.hostname = '127.0.0.1';
    for (const policy of [null, 'no-referrer']) {
        const [user] = await visit(browser, url.href);
        user.allow(/status of 403/);
        await user.page.evaluate((content) => {
            if (content) {
                document.head.insertAdjacentHTML('beforeend', `<meta name="referrer" content="${content}">`);
            }
        }, policy);
        await assert.rejects(chat(user), /could not be loaded/);
    }
}

await main({ talk, stranger });
