// SPDX-License-Identifier: Apache-2.0
// strophe.js alone in Chromium: log in, twenty messages each way in order, disconnect (see lib.mjs).

import assert from 'node:assert/strict';
import { URL_OF_PAGE, main, numbered, password } from './lib.mjs';

async function messages(browser) {
    const user = await browser.page('strophe');
    const [fromAlice, fromBob] = [numbered('to bob', 20), [...numbered('to alice', 19), '<&>"\' 你好']];
    await user.page.goto(new URL('plain.html', URL_OF_PAGE).href);
    const result = await user.page.evaluate(([alice, bob, a, b]) => window.talk('/http-bind', alice, bob, a, b),
        [['alice@localhost', password('alice')], ['bob@localhost', password('bob')], fromAlice, fromBob]);
    assert.deepEqual(result.bob, fromAlice);
    assert.deepEqual(result.alice, fromBob);
    // CONNECTING, CONNECTED, DISCONNECTING, DISCONNECTED
    for (const statuses of result.statuses) {
        assert.deepEqual(statuses, [1, 5, 7, 6]);
    }
}

await main({ messages });
