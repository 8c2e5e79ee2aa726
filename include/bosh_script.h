/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bosh_script: the text of XEP-0252, in which a <body/> comes in the query of a URI and goes as an argument of
 * a JavaScript call. Pure: works on the caller's buffers; any thread.
 */
#ifndef BOSH_SCRIPT_H
#define BOSH_SCRIPT_H

#include "bosh_body.h"

/*
 * Percent-decodes `len` bytes of a query, once and with no regard to any form's syntax: `+`, `&` and `=` stand
 * for themselves (2.2). dst has room for len bytes and may be src. False: a `%` without two hexadecimal digits.
 */
bool bosh_script_decode(char *dst, const char *src, size_t len, size_t *n);

/*
 * Takes a request apart without reading what is between its wrapper's tags, which need not be well-formed by
 * itself (2.2): `head` is all up to the end of the start tag, `content` what stands between the tags; its p is
 * NULL for a wrapper that is an empty element. Both are slices of text. False: there is no such pair of tags.
 */
bool bosh_script_cut(const char *text, size_t len, bosh_slice_t *head, bosh_slice_t *content);

/*
 * Reads a request: its wrapper as bosh_body_parse() does; what is between the tags is left as it is, because it
 * may begin or end within a stanza, and becomes req->pieces, which lie in `pieces`. Else like bosh_body_parse().
 */
apr_status_t bosh_script_parse(bosh_body_t *b, const char *text, size_t len, bosh_piece_t pieces[2],
                               bosh_req_t *req, const char **why);

/*
 * Prints the call for a body of valid UTF-8, which evaluates to that very body: line ends, quotes, backslashes
 * and format characters escaped (2.3), and `<` and the `/` behind it, so that nothing in it is markup should
 * anybody take it for HTML. dst NULL: only counts. Returns the bytes, no NUL.
 */
size_t bosh_script_print(char *dst, const char *body, size_t len);

#endif
