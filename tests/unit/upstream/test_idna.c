/* SPDX-License-Identifier: Apache-2.0 */
/* Domains in the form in which they are compared: U-001. */
#include <check.h>
#include <string.h>

#include "bosh_idna.h"

static const struct {
    const char *domain, *ascii; /* NULL: there is no such form */
} cases[] = {
    {"example.com", "example.com"},
    {"EXAMPLE.Com", "example.com"},
    {"example.com.", "example.com"},
    {"localhost", "localhost"},
    {"node_2", "node_2"},
    {"192.0.2.1", "192.0.2.1"},
    {"[2001:db8::1]", "[2001:db8::1]"},
    {"b\xc3\xbc"
     "cher.example",
     "xn--bcher-kva.example"},
    {"B\xc3\x9c"
     "CHER.Example",
     "xn--bcher-kva.example"},
    {"bu\xcc\x88"
     "cher.example",
     "xn--bcher-kva.example"}, /* not composed */
    {"xn--bcher-kva.example", "xn--bcher-kva.example"},
    {"XN--BCHER-KVA.example", "xn--bcher-kva.example"},
    {"stra\xc3\x9f"
     "e.example",
     "xn--strae-oqa.example"}, /* IDNA 2008 keeps it */
    {"\xe4\xbe\x8b\xe5\xad\x90\xe3\x80\x82\xe6\xb5\x8b\xe8\xaf\x95", "xn--fsqu00a.xn--0zwm56d"},
    {"", NULL},
    {".", NULL},
    {"\xff\xfe.example", NULL},
    {"a\xe2\x80\xae"
     "b.example",
     NULL}, /* a change of direction */
};

/* rows: U-001 */
START_TEST(forms)
{
    char ascii[BOSH_MAX_DOMAIN + 1] = "x";
    bool ok = bosh_idna_ascii(cases[_i].domain, ascii);

    ck_assert_msg(ok == (cases[_i].ascii != NULL), "%s: %s", cases[_i].domain, ascii);
    ck_assert_str_eq(ascii, ok ? cases[_i].ascii : "");
}
END_TEST

START_TEST(lengths)
{
    char domain[BOSH_MAX_DOMAIN + 2], ascii[BOSH_MAX_DOMAIN + 1];

    memset(domain, 'a', sizeof(domain));
    domain[BOSH_MAX_DOMAIN] = '\0';
    ck_assert(bosh_idna_ascii(domain, ascii));
    ck_assert_str_eq(ascii, domain);
    domain[BOSH_MAX_DOMAIN] = 'a';
    domain[BOSH_MAX_DOMAIN + 1] = '\0';
    ck_assert(!bosh_idna_ascii(domain, ascii));
}
END_TEST

int main(void)
{
    Suite *s = suite_create("idna");
    TCase *t = tcase_create("idna");
    SRunner *r;
    int failed;

    tcase_add_loop_test(t, forms, 0, sizeof(cases) / sizeof(cases[0]));
    tcase_add_test(t, lengths);
    suite_add_tcase(s, t);
    r = srunner_create(s);
    srunner_run_all(r, CK_NORMAL);
    failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed == 0 ? 0 : 1;
}
