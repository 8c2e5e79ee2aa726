/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the page must know about its server. This is the one place to edit when you install it.
 */
export default {
    /* Where mod_bosh answers; relative to the page's address, or a path, or a full URL. */
    boshUrl: '/http-bind',

    /* The domain meant when somebody logs in as plain "alice". */
    domain: location.hostname,

    /* A domain with SASL ANONYMOUS, to offer "Continue as guest"; empty: not offered. */
    anonymousDomain: '',

    /* The service whose chat rooms are meant by a name without "@"; empty: conference.<domain>. */
    roomService: '',
};
