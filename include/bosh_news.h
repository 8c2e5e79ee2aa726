/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bosh_news: what an element of the server's is, and what it tells the manager about the session besides.
 * Pure; for bosh_split.c.
 */
#ifndef BOSH_NEWS_H
#define BOSH_NEWS_H

#include "bosh_split.h"
#include "bosh_xml.h"

/* Of a child of the stream. */
bosh_split_type_t bosh_news_type(const bosh_xml_name_t *name);

/*
 * BOSH_NEWS_* of a start tag: of a child of the stream (depth 2), or of something inside one that is SASL, where
 * SASL2 puts what else succeeded along with the login (XEP-0388, XEP-0386).
 */
uint8_t bosh_news_of(bosh_split_type_t type, const bosh_xml_start_t *el);

/* Whether this start tag, within a child of the stream of this type, is that of a see-other-host error (6120
 * 4.9.3.19), whose text is an address. */
bool bosh_news_elsewhere(bosh_split_type_t type, const bosh_xml_start_t *el);

/* The name of a stream error's condition in the verbatim text of the element, or in its first n bytes: its first child
 * that is not `text`. n == 0: there is none. */
bosh_slice_t bosh_news_condition(const char *xml, size_t n);

#endif
