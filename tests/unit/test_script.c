/* SPDX-License-Identifier: Apache-2.0 */
/* The text of script syntax (XEP-0252): what is read out of a query, and what a body is printed as. */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bosh_script.h"

#define NS "http://jabber.org/protocol/httpbind"

/* ---- queries ---- */

static const char *decoded(const char *query)
{
    static char out[256];
    size_t n;

    if (!bosh_script_decode(out, query, strlen(query), &n)) {
        return "malformed";
    }
    ck_assert_uint_lt(n, sizeof(out));
    out[n] = '\0';
    return out;
}

START_TEST(test_S_003_decoded_once)
{
    ck_assert_str_eq(decoded(""), "");
    ck_assert_str_eq(decoded("%3Cbody%20a=%22b%22/%3E"), "<body a=\"b\"/>");
    ck_assert_str_eq(decoded("%c3%A9"), "\xC3\xA9");
    ck_assert_str_eq(decoded("%2525"), "%25");
    ck_assert_str_eq(decoded("a=1&b=2?c"),
                     "a=1&b=2?c"); /* no form, and one question mark is enough */
}
END_TEST

START_TEST(test_S_003_malformed_escapes)
{
    static const char *const bad[] = {"%", "a%", "%4", "%4g", "%g4", "%%20", "%-1", "% 1"};

    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        ck_assert_str_eq(decoded(bad[i]), "malformed");
    }
}
END_TEST

START_TEST(test_S_003_any_byte_in_place)
{
    char text[3 * 256 + 1];
    size_t n;

    for (int c = 0; c < 256; c++) {
        sprintf(text + 3 * c, c % 2 ? "%%%02x" : "%%%02X", c);
    }
    ck_assert(bosh_script_decode(text, text, 3 * 256, &n)); /* dst may be src */
    ck_assert_uint_eq(n, 256);
    for (int c = 0; c < 256; c++) {
        ck_assert_int_eq((unsigned char)text[c], c);
    }
}
END_TEST

START_TEST(test_S_004_plus_stays)
{
    ck_assert_str_eq(decoded("1+1%2B1"), "1+1+1");
}
END_TEST

START_TEST(test_S_005_characters_that_need_no_escape)
{
    ck_assert_str_eq(decoded("azAZ09-._~!$&'()*+,;=:@/?"), "azAZ09-._~!$&'()*+,;=:@/?");
}
END_TEST

/* ---- wrappers ---- */

static bool cut(const char *text, const char *head, const char *content)
{
    bosh_slice_t h, c;

    return bosh_script_cut(text, strlen(text), &h, &c) && h.p == text && h.n == strlen(head) &&
           memcmp(h.p, head, h.n) == 0 && (content == NULL) == (c.p == NULL) &&
           (content == NULL || (c.n == strlen(content) && memcmp(c.p, content, c.n) == 0));
}

START_TEST(test_S_006_tags_are_cut_off_textually)
{
    ck_assert(cut("<body a='1'/>", "<body a='1'/>", NULL));
    ck_assert(cut("<body a='1' />  \n", "<body a='1' />", NULL));
    ck_assert(cut("<body></body>", "<body>", ""));
    ck_assert(cut("<body\n>x</body\t>\n", "<body\n>", "x"));
    ck_assert(cut("<b:body a='>' c=\"/>\">hal<</b:body>", "<b:body a='>' c=\"/>\">", "hal<"));
    ck_assert(
        cut("<body>dy></message><body></body></body>", "<body>", "dy></message><body></body>"));
    ck_assert(cut("\xEF\xBB\xBF<?xml version='1.0'?>\n<body>x</body>",
                  "\xEF\xBB\xBF<?xml version='1.0'?>\n<body>", "x"));
}
END_TEST

START_TEST(test_S_006_no_wrapper)
{
    static const char *const bad[] = {
        "",
        " ",
        "x",
        "<",
        "<>",
        "< >",
        "<body",
        "<body a='>",
        "<body>",
        "<body>x",
        "<body></bod",
        "<body></body",
        "<body>body>",
        "<body></bodi>",
        "<body></body>x",
        "<body/>x",
        "<body/></body>",
        "<?xml",
        "<?xml version='1.0'",
        "</body></body>",
        "<body>/body>",
        "<body></ body>",
    };
    bosh_slice_t head, content;

    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        /* A copy without anything behind it: memory checkers see a byte too many. */
        char *text = malloc(strlen(bad[i]) + 1);
        memcpy(text, bad[i], strlen(bad[i]));
        ck_assert_msg(!bosh_script_cut(text, strlen(bad[i]), &head, &content), "%s", bad[i]);
        free(text);
    }
}
END_TEST

static apr_status_t parse(const char *text, bosh_req_t *req)
{
    static bosh_body_t *parser;
    static bosh_piece_t pieces[2];
    const char *why = NULL;
    apr_status_t rv;

    if (parser == NULL) {
        parser = bosh_body_create();
    }
    rv = bosh_script_parse(parser, text, strlen(text), pieces, req, &why);
    ck_assert(rv == APR_SUCCESS || why != NULL);
    return rv;
}

START_TEST(test_S_006_what_is_between_the_tags_is_not_read)
{
    bosh_req_t req;

    ck_assert_int_eq(
        parse("<body xmlns='" NS "' rid='7' sid='s'>dy>hi</body></message><pre</body>", &req),
        APR_SUCCESS);
    ck_assert_uint_eq(req.rid, 7);
    ck_assert_str_eq(req.sid, "s");
    ck_assert(req.script && req.raw && (req.has & BOSH_HAS_PAYLOAD));
    ck_assert_uint_eq(req.npieces, 2);
    ck_assert_uint_eq(req.pieces[1].n, strlen("dy>hi</body></message><pre"));
    ck_assert_uint_eq(req.payload_bytes, req.pieces[0].n + req.pieces[1].n);

    ck_assert_int_eq(parse("<body xmlns='" NS "' rid='7' sid='s'> \n</body>", &req), APR_SUCCESS);
    ck_assert(req.raw && !(req.has & BOSH_HAS_PAYLOAD)); /* white space may be part of a text */
    ck_assert_int_eq(parse("<body xmlns='" NS "' rid='7' sid='s'></body>", &req), APR_SUCCESS);
    ck_assert(req.script && !req.raw && req.npieces == 0);
    ck_assert_int_eq(parse("<body xmlns='" NS "' rid='7' sid='s'/>", &req), APR_SUCCESS);
    ck_assert(req.script && !req.raw && req.npieces == 0);
}
END_TEST

START_TEST(test_S_007_the_wrapper_itself_is_checked)
{
    static const char *const bad[] = {
        "<body xmlns='" NS "' sid='s'/>",
        "<body xmlns='" NS "' sid='s'></body>",
        "<body xmlns='" NS "' sid='s' rid='0'>x</body>",
        "<body xmlns='" NS "' sid='s' rid='1' rid='2'>x</body>",
        "<body xmlns='jabber:client' sid='s' rid='1'>x</body>",
        "<!DOCTYPE body><body xmlns='" NS "' sid='s' rid='1'/>",
        "<!-- --><body xmlns='" NS "' sid='s' rid='1'></body>",
        "<?xml version='1.1'?><body xmlns='" NS "' sid='s' rid='1'></body>",
        "<body xmlns='" NS "' sid='s' rid='1'/><!-- -->",
        "<body xmlns='" NS "' sid='s' rid='1'></body><?x y?>",
        "<body xmlns='" NS "' sid='s' rid='1'>\n",
        "<a:body xmlns='" NS "' sid='s' rid='1'></a:body>",
    };
    bosh_req_t req;

    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        ck_assert_msg(parse(bad[i], &req) == APR_EGENERAL, "%s", bad[i]);
    }
    /* The session that is named can be ended. */
    ck_assert_int_eq(parse("<body xmlns='" NS "' sid='abc'>x</body>", &req), APR_EGENERAL);
    ck_assert_str_eq(req.sid, "abc");
    ck_assert_int_eq(parse("<body xmlns='" NS "' sid='abc' rid='1'>x", &req), APR_EGENERAL);
    ck_assert_str_eq(req.sid, "abc");
}
END_TEST

/* ---- answers ---- */

static const char *printed(const char *body)
{
    static char *out;
    size_t n = bosh_script_print(NULL, body, strlen(body));

    free(out);
    out = malloc(n + 1);
    ck_assert_uint_eq(bosh_script_print(out, body, strlen(body)), n);
    out[n] = '\0';
    return out;
}

START_TEST(test_S_008_the_call_and_nothing_else)
{
    ck_assert_str_eq(printed(""), "_BOSH_(\"\")");
    ck_assert_str_eq(printed("a b='c'>d"), "_BOSH_(\"a b='c'>d\")");
}
END_TEST

START_TEST(test_S_009_S_011_quotes_and_line_ends)
{
    ck_assert_str_eq(printed("\"\\\n\r\xE2\x80\xA8\xE2\x80\xA9"),
                     "_BOSH_(\"\\\"\\\\\\n\\r\\u2028\\u2029\")");
    ck_assert_str_eq(printed("\\n\\\"\t"), "_BOSH_(\"\\\\n\\\\\\\"\t\")");
}
END_TEST

START_TEST(test_S_010_format_characters)
{
    ck_assert_str_eq(printed("\xC2\xAD\xE2\x80\x8E\xEF\xBB\xBF\xF3\xA0\x80\x81"),
                     "_BOSH_(\"\\u00ad\\u200e\\ufeff\\udb40\\udc01\")");
    /* Their neighbors, and other text. */
    ck_assert_str_eq(
        printed("\xC2\xAC\xC2\xAE\xE2\x81\xA5\xE2\x80\x8A\xF0\x9F\x98\x80\xC3\xA9"),
        "_BOSH_(\"\xC2\xAC\xC2\xAE\xE2\x81\xA5\xE2\x80\x8A\xF0\x9F\x98\x80\xC3\xA9\")");
}
END_TEST

START_TEST(test_S_012_no_markup)
{
    ck_assert_str_eq(printed("<a></script><!--/"),
                     "_BOSH_(\"\\u003ca>\\u003c\\/script>\\u003c!--/\")");
}
END_TEST

/* What nobody can send is neither lost nor read beyond its end. */
START_TEST(test_bytes_that_are_no_characters)
{
    static const char *const odd[] = {"\xC2", "\xE2\x80",  "\xF3\xA0\x80", "\x80",
                                      "\xFF", "\xE2x\x8E", "\xC0\xAF"};

    for (size_t i = 0; i < sizeof(odd) / sizeof(odd[0]); i++) {
        size_t n = strlen(odd[i]);
        char *text = malloc(n), out[32];
        memcpy(text, odd[i], n);
        ck_assert_uint_eq(bosh_script_print(out, text, n), n + 10);
        ck_assert_int_eq(memcmp(out + 8, odd[i], n), 0);
        free(text);
    }
}
END_TEST

int main(void)
{
    const TTest *const tests[] = {
        test_S_003_decoded_once,
        test_S_003_malformed_escapes,
        test_S_003_any_byte_in_place,
        test_S_004_plus_stays,
        test_S_005_characters_that_need_no_escape,
        test_S_006_tags_are_cut_off_textually,
        test_S_006_no_wrapper,
        test_S_006_what_is_between_the_tags_is_not_read,
        test_S_007_the_wrapper_itself_is_checked,
        test_S_008_the_call_and_nothing_else,
        test_S_009_S_011_quotes_and_line_ends,
        test_S_010_format_characters,
        test_S_012_no_markup,
        test_bytes_that_are_no_characters,
    };
    Suite *suite = suite_create("script");
    TCase *tc = tcase_create("script");
    SRunner *sr;
    int failed;

    for (size_t i = 0; i < sizeof(tests) / sizeof(tests[0]); i++) {
        tcase_add_test(tc, tests[i]);
    }
    suite_add_tcase(suite, tc);
    sr = srunner_create(suite);
    srunner_run_all(sr, CK_NORMAL);
    failed = srunner_ntests_failed(sr);
    srunner_free(sr);
    return failed > 0;
}
