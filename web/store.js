/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What survives a reload of the page: a small key-value store over sessionStorage (this tab only, gone
 * with the tab; never a password).
 *
 * Values are kept by reference and written at the end of the current task (a microtask), all together. A
 * page can be unloaded between tasks but not within one, so a reload finds either everything that one
 * response of the server did, or nothing of it. That is what makes "no message lost, none twice" hold.
 */

const PREFIX = 'im.';

export class Store {
    /** @param {Storage} area  sessionStorage, or anything alike */
    constructor(area) {
        this.area = area;
        this.dirty = new Map();
        this.onquota = null; // called once per failed write; should make values smaller
    }

    get(key, fallback = null) {
        try {
            const text = this.area.getItem(PREFIX + key);
            return text === null ? fallback : JSON.parse(text);
        } catch {
            return fallback; // storage switched off, or a value of an older version
        }
    }

    set(key, value) {
        if (this.dirty.size === 0) {
            queueMicrotask(() => this.flush());
        }
        this.dirty.set(key, value);
    }

    flush() {
        const work = this.dirty;
        this.dirty = new Map();
        for (const [key, value] of work) {
            if (!this.write(key, value) && this.onquota) {
                this.onquota();
                this.write(key, value);
            }
        }
    }

    write(key, value) {
        try {
            if (value === null || value === undefined) {
                this.area.removeItem(PREFIX + key);
            } else {
                this.area.setItem(PREFIX + key, JSON.stringify(value));
            }
            return true;
        } catch {
            return false; // full, or switched off: the page works, a reload then asks for the password
        }
    }

    /** Forgets everything, now. */
    clear() {
        this.dirty.clear();
        try {
            for (const key of Object.keys(this.area)) {
                if (key.startsWith(PREFIX)) {
                    this.area.removeItem(key);
                }
            }
        } catch {
            /* nothing was stored */
        }
    }
}
