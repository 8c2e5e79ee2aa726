/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bosh_map: a request for a <Location> with SetHandler bosh has no file behind it. So httpd is kept from looking
 * for one: no walk through the directories of the document root (<Directory>, <Files>, .htaccess), which costs
 * some 10 us of CPU a request. What the Location says about access, headers and all else holds as ever.
 */
#ifndef BOSH_MAP_H
#define BOSH_MAP_H

#include "httpd.h"

/* Hooks translate_name and map_to_storage. register_hooks time. */
void bosh_map_register(void);

#endif
