/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Small pieces of user interface: elements, avatars, menus, dialogs, passing notices. Text goes into the
 * page as text nodes only; nothing here, or anywhere else in the page, parses markup.
 */

import { t } from './i18n.js';

export function byId(id) {
    return document.getElementById(id);
}

/** el('li.msg.mine', {title: 'x', dataset: {id: '1'}}, child, 'text', ...): null children are left out. */
export function el(name, attributes = {}, ...children) {
    const [tag, ...classes] = name.split('.');
    const element = document.createElement(tag);
    element.className = classes.join(' ');
    for (const [key, value] of Object.entries(attributes)) {
        if (key === 'dataset') {
            Object.assign(element.dataset, value);
        } else if (key.startsWith('on')) {
            element.addEventListener(key.slice(2), value);
        } else if (value !== null && value !== false) {
            element.setAttribute(key, value === true ? '' : value);
        }
    }
    element.append(...children.filter((child) => child !== null && child !== undefined));
    return element;
}

const SVG = 'http://www.w3.org/2000/svg';

export function icon(name) {
    const svg = document.createElementNS(SVG, 'svg');
    const use = document.createElementNS(SVG, 'use');
    svg.setAttribute('class', 'icon');
    svg.setAttribute('aria-hidden', 'true');
    use.setAttribute('href', `#i-${name}`);
    svg.append(use);
    return svg;
}

/** A circle with the first letter of a name, in a color of its own; with a dot for a presence. */
export function avatar(jid, name, show = null) {
    let hash = 0;
    for (const character of jid) {
        hash = (hash * 31 + character.codePointAt(0)) >>> 0;
    }
    const letter = (Array.from(name.trim())[0] || '?').toUpperCase();
    return el(`span.avatar.hue-${hash % 8}`, { 'aria-hidden': 'true' }, el('span.letter', {}, letter),
        show === null ? null : el(`span.dot.${show || 'online'}`));
}

export function roomAvatar(jid) {
    const shape = avatar(jid, '#');
    shape.querySelector('.letter').replaceChildren(icon('people'));
    return shape;
}

/** A text with its web addresses as links. */
export function linkify(text) {
    const fragment = document.createDocumentFragment();
    let last = 0;
    for (const match of text.matchAll(/\bhttps?:\/\/[^\s<>"'`]+[^\s<>"'`.,:;!?()[\]{}]/g)) {
        fragment.append(text.slice(last, match.index));
        fragment.append(el('a', { href: match[0], target: '_blank', rel: 'noopener noreferrer' }, match[0]));
        last = match.index + match[0].length;
    }
    fragment.append(text.slice(last));
    return fragment;
}

/** A notice at the edge of the page that goes away by itself. */
export function toast(text) {
    const box = el('div.toast', {}, text);
    byId('toasts').append(box);
    setTimeout(() => box.remove(), 6000);
}

/** Says something to a screen reader only. */
export function announce(text) {
    byId('announcer').textContent = text;
}

/**
 * A menu below a button. items() gives [{label, icon, danger, action}] each time it opens.
 * Arrow keys, Home, End; Escape and Tab close it.
 */
export function menu(button, items) {
    const box = el('div.menu', { role: 'menu', hidden: true });
    button.after(box);
    button.setAttribute('aria-haspopup', 'menu');
    button.setAttribute('aria-expanded', 'false');
    const close = (refocus) => {
        box.hidden = true;
        button.setAttribute('aria-expanded', 'false');
        if (refocus) {
            button.focus();
        }
    };
    const open = () => {
        box.replaceChildren(...items().map((item) => el(`button.item${item.danger ? '.danger' : ''}`, {
            type: 'button',
            role: 'menuitem',
            tabindex: '-1',
            onclick: () => {
                close(true);
                item.action();
            },
        }, icon(item.icon), item.label)));
        box.hidden = false;
        button.setAttribute('aria-expanded', 'true');
        box.firstElementChild.focus();
    };
    button.addEventListener('click', () => (box.hidden ? open() : close(true)));
    button.addEventListener('keydown', (event) => {
        if (event.key === 'ArrowDown' && box.hidden) {
            event.preventDefault();
            open();
        }
    });
    box.addEventListener('keydown', (event) => {
        if (event.key === 'Escape') {
            event.stopPropagation();
            close(true);
        } else if (event.key === 'Tab') {
            close(false);
        } else {
            moveFocus(event, [...box.children]);
        }
    });
    document.addEventListener('pointerdown', (event) => {
        if (!box.hidden && !box.contains(event.target) && !button.contains(event.target)) {
            close(false);
        }
    });
}

/** Moves the focus among elements by arrow keys, Home and End. True when the key was one of those. */
export function moveFocus(event, elements) {
    const at = elements.indexOf(document.activeElement);
    const last = elements.length - 1;
    const to = { ArrowDown: Math.min(at + 1, last), ArrowUp: Math.max(at - 1, 0), Home: 0, End: last }[event.key];
    if (to === undefined || last < 0) {
        return false;
    }
    event.preventDefault();
    elements[to].focus();
    return true;
}

/**
 * A dialog that asks for something. fields: [{name, label, value, hint, required}]. check(values) gives an
 * error text, or null. Resolves to the values, or to null when it was cancelled.
 */
export function ask({ title, text = null, fields = [], ok, danger = false, check = () => null }) {
    return new Promise((resolve) => {
        let answer = null;
        const inputs = fields.map((field) => el('input', { id: `ask-${field.name}`, name: field.name,
            type: 'text', value: field.value || '', placeholder: field.hint || '', autocomplete: 'off',
            autocapitalize: 'none', spellcheck: 'false' }));
        const error = el('p.error', { role: 'alert' });
        const dialog = el('dialog.dialog', { 'aria-labelledby': 'ask-title' });
        const form = el('form', { novalidate: true },
            el('h2', { id: 'ask-title' }, title),
            text && el('p', {}, text),
            ...fields.map((field, i) => el('div.field', {},
                el('label', { for: `ask-${field.name}` }, field.label), inputs[i])),
            error,
            el('div.buttons', {},
                el('button.quiet', { type: 'button', onclick: () => dialog.close() }, t('cancel')),
                el(`button.${danger ? 'danger' : 'primary'}`, { type: 'submit' }, ok)));
        form.addEventListener('submit', (event) => {
            event.preventDefault();
            const values = Object.fromEntries(inputs.map((input) => [input.name, input.value.trim()]));
            const problem = check(values);
            if (problem) {
                error.textContent = problem;
                inputs[0].focus();
                return;
            }
            answer = values;
            dialog.close();
        });
        dialog.addEventListener('close', () => {
            dialog.remove();
            resolve(answer);
        });
        dialog.append(form);
        document.body.append(dialog);
        dialog.showModal();
        if (inputs[0]) {
            inputs[0].focus();
            inputs[0].select();
        }
    });
}
