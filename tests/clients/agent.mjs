// SPDX-License-Identifier: Apache-2.0
// The tests talk to every client in the same way, whatever language it is written in (tests/e2e/agents.py is the other
// end). One line each, tab separated:
//
//   stdin    USER login URL JID PASSWORD      USER attach URL JID SID RID      USER say TO TEXT
//            USER reload                      USER session                     USER logout
//   stdout   USER online JID                  USER message FROM TEXT           USER session SID RID
//            USER offline                     USER error TEXT

import readline from 'node:readline';

/** Tells the test what happened. Texts have no tab and no line break; errors may. */
export function report(user, event, ...args) {
    process.stdout.write([user, event, ...args.map((arg) => String(arg).replace(/[\t\n]/g, ' '))].join('\t') + '\n');
}

/** Calls act(user, command, args) for each line; ends with stdin. Commands of a user are carried out in order. */
export async function serve(act) {
    const last = new Map();
    for await (const line of readline.createInterface({ input: process.stdin, crlfDelay: Infinity })) {
        const [user, command, ...args] = line.split('\t');
        last.set(user, (last.get(user) || Promise.resolve()).then(() => act(user, command, args))
            .catch((error) => report(user, 'error', error.stack || error)));
    }
}
