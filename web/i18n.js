/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Every text of the page, in each language it speaks, and what depends on a language besides: dates.
 * The language is the browser's, or what ?lang= in the address says. {name} in a text is a value.
 */

const TEXTS = {
    en: {
        appName: 'Chat',
        loginLead: 'Log in to see who is there.',
        address: 'User name or address',
        addressHint: 'alice, or alice@example.org',
        password: 'Password',
        logIn: 'Log in',
        loggingIn: 'Logging in …',
        or: 'or',
        guest: 'Continue as guest',
        otherLanguage: '中文',

        sidebar: 'Chats and contacts',
        status: 'Your status',
        logOut: 'Log out',
        logOutAsk: 'Log out? The conversations on this page are forgotten.',
        guestName: 'Guest',
        newThing: 'New chat or contact',
        addContact: 'Add a contact',
        messageSomebody: 'Message somebody',
        joinRoom: 'Join a chat room',
        requests: 'Contact requests',
        requestText: '{name} wants to see when you are online.',
        accept: 'Accept',
        decline: 'Decline',
        chats: 'Chats',
        contacts: 'Contacts',
        noContacts: 'Nobody here yet. Add a contact with the + above.',
        noContactsGuest: 'Guests have no contact list. Join a chat room or message somebody with the + above.',
        unread: '{n} unread',
        you: 'You',

        online: 'Online',
        away: 'Away',
        dnd: 'Do not disturb',
        offline: 'Offline',
        typing: 'typing …',
        waitingForApproval: 'Waiting for their approval',
        room: 'Chat room',
        roomAlone: 'Only you are here',
        roomPeople: '{n} people: {names}',
        roomNotJoined: 'You are not in this room',

        connecting: 'Connecting …',
        resuming: 'Continuing your session …',
        reconnecting: 'Connection lost. Reconnecting, attempt {n} …',
        reconnectingIn: 'Connection lost. Attempt {n} in {s} s.',
        noNetwork: 'This device is offline. Waiting for the network.',
        tryNow: 'Try now',
        backOnline: 'Connected again.',

        emptyTitle: 'No chat is open',
        emptyText: 'Choose a contact, or start something new with the + button.',
        back: 'Back to the list',
        more: 'More actions',
        closeChat: 'Close chat',
        leaveRoom: 'Leave room',
        rejoinRoom: 'Join again',
        removeContact: 'Remove contact',
        removeAsk: 'Remove {name} from your contacts? You will no longer see each other’s status.',
        remove: 'Remove',
        messages: 'Messages with {name}',
        message: 'Message to {name}',
        send: 'Send',
        toBottom: 'Go to the newest message',
        noMessages: 'No messages yet. Say hello!',
        delayed: 'delivered later',
        stateSending: 'waiting for the connection',
        stateSent: 'sent',
        stateDelivered: 'delivered',
        uncertain: 'The connection broke while this was sent. It may not have arrived.',
        failed: 'Not delivered.',
        failedBecause: 'Not delivered: {reason}',
        sendAgain: 'Send again',
        newFrom: 'New message from {name}',

        cancel: 'Cancel',
        contactAddress: 'Address',
        contactName: 'Name (your choice, optional)',
        add: 'Add',
        open: 'Open',
        roomName: 'Room name',
        roomHint: 'lobby, or lobby@conference.example.org',
        nickname: 'Your name in the room',
        join: 'Join',
        badAddress: 'That is not an address. It looks like alice@example.org.',
        needPassword: 'Enter a password.',
        needName: 'Enter a name.',

        addFailed: '{jid} could not be added. {reason}',
        added: 'Request sent to {jid}.',
        joinFailed: 'You cannot join {room}. {reason}',
        leftRoom: 'You are no longer in {room}.',
        newGuest: 'The session was lost. You are back as a new guest.',

        expired: 'Your session has ended. Log in again to go on; your conversations are still here.',
        'not-authorized': 'Wrong user name or password.',
        insecure: 'This page did not come over HTTPS or from localhost, so the browser switches off the ' +
            'cryptography that a safe log-in (SCRAM) needs, and the server takes no other. Open the page over https://.',
        unreachable: 'The chat service at {url} does not answer.',
        timeout: 'The chat service took too long to answer.',
        'host-unknown': 'This service does not know the domain {domain}.',
        'improper-addressing': 'This service does not know the domain {domain}.',
        'remote-connection-failed': 'The chat server of {domain} cannot be reached.',
        'system-shutdown': 'The chat service is being stopped.',
        conflict: 'You have logged in somewhere else with the same name, so this session was ended.',
        otherError: 'The log-in failed ({condition}).',

        'e-service-unavailable': 'Nobody takes messages at this address now.',
        'e-recipient-unavailable': 'Nobody takes messages at this address now.',
        'e-item-not-found': 'There is nothing at this address.',
        'e-remote-server-not-found': 'The server of this address cannot be reached.',
        'e-remote-server-timeout': 'The server of this address does not answer.',
        'e-forbidden': 'You are not allowed to.',
        'e-not-allowed': 'You are not allowed to.',
        'e-not-authorized': 'It needs a password.',
        'e-registration-required': 'Only members may enter.',
        'e-not-acceptable': 'You may not speak here.',
    },
    zh: {
        appName: '聊天',
        loginLead: '登录后即可看到谁在线。',
        address: '用户名或地址',
        addressHint: 'alice 或 alice@example.org',
        password: '密码',
        logIn: '登录',
        loggingIn: '正在登录…',
        or: '或',
        guest: '以访客身份继续',
        otherLanguage: 'English',

        sidebar: '聊天和联系人',
        status: '我的状态',
        logOut: '退出登录',
        logOutAsk: '要退出登录吗?此页面上的聊天记录将被清除。',
        guestName: '访客',
        newThing: '新建聊天或联系人',
        addContact: '添加联系人',
        messageSomebody: '给某人发消息',
        joinRoom: '加入聊天室',
        requests: '好友请求',
        requestText: '{name} 希望看到您的在线状态。',
        accept: '接受',
        decline: '拒绝',
        chats: '聊天',
        contacts: '联系人',
        noContacts: '还没有联系人。请用上方的 + 添加。',
        noContactsGuest: '访客没有联系人列表。请用上方的 + 加入聊天室或给某人发消息。',
        unread: '{n} 条未读',
        you: '我',

        online: '在线',
        away: '离开',
        dnd: '请勿打扰',
        offline: '离线',
        typing: '正在输入…',
        waitingForApproval: '等待对方同意',
        room: '聊天室',
        roomAlone: '这里只有您一人',
        roomPeople: '{n} 人:{names}',
        roomNotJoined: '您不在此聊天室中',

        connecting: '正在连接…',
        resuming: '正在恢复会话…',
        reconnecting: '连接已断开,正在进行第 {n} 次重连…',
        reconnectingIn: '连接已断开,{s} 秒后进行第 {n} 次重连。',
        noNetwork: '设备已离线,正在等待网络。',
        tryNow: '立即重试',
        backOnline: '已重新连接。',

        emptyTitle: '没有打开的聊天',
        emptyText: '请选择一位联系人,或用 + 按钮开始新的聊天。',
        back: '返回列表',
        more: '更多操作',
        closeChat: '关闭聊天',
        leaveRoom: '离开聊天室',
        rejoinRoom: '重新加入',
        removeContact: '删除联系人',
        removeAsk: '要将 {name} 从联系人中删除吗?你们将无法再看到对方的状态。',
        remove: '删除',
        messages: '与 {name} 的消息',
        message: '发消息给 {name}',
        send: '发送',
        toBottom: '跳到最新消息',
        noMessages: '还没有消息,打个招呼吧!',
        delayed: '延迟送达',
        stateSending: '等待连接',
        stateSent: '已发送',
        stateDelivered: '已送达',
        uncertain: '发送时连接中断,对方可能没有收到。',
        failed: '未送达。',
        failedBecause: '未送达:{reason}',
        sendAgain: '重新发送',
        newFrom: '{name} 发来新消息',

        cancel: '取消',
        contactAddress: '地址',
        contactName: '备注名(可选)',
        add: '添加',
        open: '打开',
        roomName: '聊天室名称',
        roomHint: 'lobby 或 lobby@conference.example.org',
        nickname: '您在聊天室中的名字',
        join: '加入',
        badAddress: '地址不正确,格式应如 alice@example.org。',
        needPassword: '请输入密码。',
        needName: '请输入名称。',

        addFailed: '无法添加 {jid}。{reason}',
        added: '已向 {jid} 发送请求。',
        joinFailed: '无法加入 {room}。{reason}',
        leftRoom: '您已不在 {room} 中。',
        newGuest: '会话已丢失,您现在是一位新访客。',

        expired: '会话已结束。请重新登录,您的聊天记录仍在这里。',
        'not-authorized': '用户名或密码错误。',
        insecure: '此页面不是通过 HTTPS 或从 localhost 打开的,浏览器因此禁用了安全登录(SCRAM)所需的加密功能,' +
            '而服务器不接受其他方式。请通过 https:// 打开此页面。',
        unreachable: '聊天服务 {url} 没有响应。',
        timeout: '聊天服务响应超时。',
        'host-unknown': '此服务不认识域名 {domain}。',
        'improper-addressing': '此服务不认识域名 {domain}。',
        'remote-connection-failed': '无法连接 {domain} 的聊天服务器。',
        'system-shutdown': '聊天服务正在停止。',
        conflict: '您已在别处以同一名称登录,此会话因此结束。',
        otherError: '登录失败({condition})。',

        'e-service-unavailable': '此地址目前无人接收消息。',
        'e-recipient-unavailable': '此地址目前无人接收消息。',
        'e-item-not-found': '此地址不存在。',
        'e-remote-server-not-found': '无法连接此地址的服务器。',
        'e-remote-server-timeout': '此地址的服务器没有响应。',
        'e-forbidden': '您没有权限。',
        'e-not-allowed': '您没有权限。',
        'e-not-authorized': '需要密码。',
        'e-registration-required': '仅限成员进入。',
        'e-not-acceptable': '您不能在此发言。',
    },
};

function chooseLanguage() {
    const asked = new URLSearchParams(location.search).get('lang') || navigator.language || 'en';
    return /^zh\b/i.test(asked) ? 'zh' : 'en';
}

export const lang = chooseLanguage();
const locale = lang === 'zh' ? 'zh-CN' : (/^en\b/i.test(navigator.language) ? navigator.language : 'en-GB');

export function has(key) {
    return Object.hasOwn(TEXTS[lang], key);
}

export function t(key, values = {}) {
    return TEXTS[lang][key].replace(/\{(\w+)\}/g, (whole, name) => String(values[name] ?? whole));
}

/** What an error of the server (see errorOf in stanza.js) is called here. */
export function reason(error) {
    return has(`e-${error.condition}`) ? t(`e-${error.condition}`) : error.text || error.condition;
}

/** Fills in the texts of the document itself: data-i18n, data-i18n-label, data-i18n-placeholder. */
export function translateDocument() {
    document.documentElement.lang = lang === 'zh' ? 'zh-CN' : 'en';
    document.title = t('appName');
    for (const element of document.querySelectorAll('[data-i18n]')) {
        element.textContent = t(element.dataset.i18n);
    }
    for (const element of document.querySelectorAll('[data-i18n-label]')) {
        element.setAttribute('aria-label', t(element.dataset.i18nLabel));
        if (element.matches('button')) {
            element.title = t(element.dataset.i18nLabel); // an icon alone: seeing people get the text as well
        }
    }
    for (const element of document.querySelectorAll('[data-i18n-placeholder]')) {
        element.placeholder = t(element.dataset.i18nPlaceholder);
    }
}

const timeFormat = new Intl.DateTimeFormat(locale, { hour: 'numeric', minute: '2-digit' });
const dayFormat = new Intl.DateTimeFormat(locale, { weekday: 'long', day: 'numeric', month: 'long' });
const shortDayFormat = new Intl.DateTimeFormat(locale, { day: 'numeric', month: 'short' });
const fullFormat = new Intl.DateTimeFormat(locale, { dateStyle: 'full', timeStyle: 'medium' });
const relativeFormat = new Intl.RelativeTimeFormat(locale, { numeric: 'auto' });

export function formatTime(at) {
    return timeFormat.format(at);
}

export function formatFull(at) {
    return fullFormat.format(at);
}

export function sameDay(a, b) {
    return new Date(a).toDateString() === new Date(b).toDateString();
}

/** "Today", "Yesterday", or the date. */
export function formatDay(at) {
    const start = (time) => new Date(new Date(time).toDateString()).getTime();
    const days = Math.round((start(at) - start(Date.now())) / 86400000);
    const text = days === 0 || days === -1 ? relativeFormat.format(days, 'day') : dayFormat.format(at);
    return text.charAt(0).toUpperCase() + text.slice(1);
}

/** For a list: the time today, the date otherwise. */
export function formatShort(at) {
    return sameDay(at, Date.now()) ? timeFormat.format(at) : shortDayFormat.format(at);
}
