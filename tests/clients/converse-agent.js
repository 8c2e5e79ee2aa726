/* SPDX-License-Identifier: Apache-2.0 */
/* The whole of Converse, with its keepalive: a page in full screen that may talk to anybody. ?prebind=URL: attached. */

/* global converse */

const prebind = new URLSearchParams(location.search).get('prebind');

converse.plugins.add('agent', {
    initialize() {
        const { _converse } = this;
        const { api } = _converse;
        const online = () => window.report('online', _converse.session.get('jid'));
        api.listen.on('connected', online);
        api.listen.on('reconnected', online);
        api.listen.on('disconnected', () => window.report('offline'));
        // Its own event for a message comes when work behind it is done, for the first of a chat later than for the next.
        api.listen.on('connectionInitialized', () => {
            const connection = api.connection.get();
            const { xmlInput } = connection;
            connection.xmlInput = (answer) => {
                xmlInput?.call(connection, answer);
                for (const message of answer.querySelectorAll(':scope > message:not([type=error])')) {
                    const body = message.querySelector(':scope > body');
                    if (body) {
                        window.report('message', message.getAttribute('from'), body.textContent);
                    }
                }
            };
        });
        window.agent = {
            login: (jid, password) => { // its promise is for logins that fail
                api.user.login(jid, password);
            },
            attach: () => {},
            say: async (to, text) => {
                const chat = await api.chats.open(to.replace(/\/.*/, ''));
                await chat.sendMessage({ body: text });
            },
            session: () => [api.connection.get()._proto.sid, api.connection.get()._proto.rid],
            texts: () => [...document.querySelectorAll('.chat-msg__text')].map((element) => element.textContent.trim()),
            logout: () => api.user.logout(),
        };
    },
});

converse.initialize({
    allow_non_roster_messaging: true,
    assets_path: '/converse/',
    authentication: prebind ? 'prebind' : 'login',
    auto_login: Boolean(prebind),
    bosh_service_url: '/http-bind',
    discover_connection_methods: false,
    i18n: 'en',
    keepalive: true,
    persistent_store: 'sessionStorage',
    play_sounds: false,
    prebind_url: prebind,
    view_mode: 'fullscreen',
    whitelisted_plugins: ['agent'],
});
