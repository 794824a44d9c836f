/* Unit tests of the hook's own logic: plans, names, turns, shapes, errors, and that it never reads or writes
 * out of bounds (run it under AddressSanitizer: native/asan.sh). The tensor is this file's own struct: the
 * hook cannot tell, since it knows no layout. Other tests check with llama.cpp that it behaves as assumed. */
#include "edgecal_hook.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { N_LAYER = 3, N_EMBD = 4, N_PROMPTS = 3 };

struct ggml_tensor {
    const char *name;
    int64_t n_rows;
    size_t n_bytes;
    size_t element_bytes;
    bool contiguous;
    const float *data;
};

static int n_failed;
static int n_checked;

static void check(bool holds, const char *what, int line) {
    n_checked += 1;
    if (!holds) {
        n_failed += 1;
        fprintf(stderr, "test_hook.c:%d: failed: %s\n", line, what);
    }
}
#define CHECK(condition) check((condition), #condition, __LINE__)

static const char *get_name(const struct ggml_tensor *tensor) { return tensor->name; }
static int64_t nrows(const struct ggml_tensor *tensor) { return tensor->n_rows; }
static size_t nbytes(const struct ggml_tensor *tensor) { return tensor->n_bytes; }
static size_t element_size(const struct ggml_tensor *tensor) { return tensor->element_bytes; }
static bool is_contiguous(const struct ggml_tensor *tensor) { return tensor->contiguous; }
static void tensor_get(const struct ggml_tensor *tensor, void *data, size_t offset, size_t size) {
    if (offset + size > tensor->n_bytes) {
        fprintf(stderr, "read past the tensor: %zu + %zu of %zu\n", offset, size, tensor->n_bytes);
        abort();
    }
    memcpy(data, (const char *)tensor->data + offset, size);
}

static const edgecal_residual RESIDUAL = {"l_out", N_EMBD, 1, false};
static const edgecal_getters GETTERS = {get_name, nrows, nbytes, element_size, is_contiguous, tensor_get};

/* Two micro-batches of 5 and 2 tokens. Prompts 2 and 0 end in the first, 1 in the second. */
static const edgecal_microbatch PARTS[2] = {{5, 2, 0, 2}, {2, 1, 2, 3}};
static const edgecal_row ROWS[3] = {{1, 0, 2}, {4, 1, 0}, {1, 0, 1}};

typedef struct {
    edgecal_capture *capture;
    float *destination; /* on the heap, so that AddressSanitizer guards its ends */
    uint8_t *captured;
} fixture;

static fixture set_up(const edgecal_microbatch *parts, int32_t n_parts, const edgecal_row *rows, int32_t n_rows) {
    fixture f;
    f.capture = edgecal_capture_new(&GETTERS, N_LAYER, &RESIDUAL);
    f.destination = malloc(sizeof(float) * N_PROMPTS * N_LAYER * N_EMBD);
    f.captured = calloc(N_PROMPTS * N_LAYER, 1);
    if (f.capture == NULL || f.destination == NULL || f.captured == NULL) {
        abort();
    }
    for (size_t i = 0; i < N_PROMPTS * N_LAYER * N_EMBD; ++i) {
        f.destination[i] = -1.0f;
    }
    CHECK(edgecal_capture_plan(f.capture, f.destination, f.captured, N_PROMPTS, parts, n_parts, rows, n_rows));
    return f;
}

static edgecal_report tear_down(fixture f) {
    edgecal_report report;
    const int32_t code = edgecal_capture_finish(f.capture, &report);
    CHECK(code == report.code);
    edgecal_capture_free(f.capture);
    free(f.destination);
    free(f.captured);
    return report;
}

/* Shows the hook a tensor as llama.cpp would: asks, then passes it if wanted. Value at (row, j) is
 * 1000 * microbatch + 100 * block + 10 * row + j. Returns the hook's answer. */
static bool show_as(fixture f, struct ggml_tensor tensor, int microbatch, int block) {
    const size_t n_values = tensor.n_rows > 0 ? (size_t)tensor.n_rows * N_EMBD : 0;
    float *data = malloc(n_values > 0 ? n_values * sizeof *data : 1);
    if (data == NULL) {
        abort();
    }
    for (size_t i = 0; i < n_values; ++i) {
        data[i] = (float)(1000 * microbatch + 100 * block) + (float)(10 * (i / N_EMBD) + i % N_EMBD);
    }
    tensor.data = data;
    const bool wanted = edgecal_capture_eval(&tensor, true, f.capture);
    if (wanted) {
        CHECK(edgecal_capture_eval(&tensor, false, f.capture));
    }
    free(data);
    return wanted;
}

static struct ggml_tensor plain(const char *name, int64_t n_rows) {
    const struct ggml_tensor tensor = {name, n_rows, (size_t)n_rows * N_EMBD * 4, 4, true, NULL};
    return tensor;
}

static bool show(fixture f, int microbatch, int block, int64_t n_rows) {
    char name[32];
    snprintf(name, sizeof name, "l_out-%d", block);
    return show_as(f, plain(name, n_rows), microbatch, block);
}

static float value(fixture f, int prompt, int block, int j) {
    return f.destination[(prompt * N_LAYER + block) * N_EMBD + j];
}

static void test_rows_are_copied(void) {
    for (int every_row = 0; every_row <= 1; ++every_row) {
        fixture f = set_up(PARTS, 2, ROWS, 3);
        for (int k = 0; k < 2; ++k) {
            for (int il = 0; il < N_LAYER; ++il) {
                const bool is_last = il == N_LAYER - 1;
                CHECK(!show_as(f, plain("ffn_out-0", 5), k, il));
                CHECK(show(f, k, il, is_last && !every_row ? PARTS[k].n_outputs : PARTS[k].n_tokens));
            }
        }
        for (int il = 0; il < N_LAYER; ++il) {
            const bool outputs = il == N_LAYER - 1 && !every_row;
            for (int j = 0; j < N_EMBD; ++j) {
                CHECK(value(f, 2, il, j) == (float)(100 * il + 10 * (outputs ? 0 : 1) + j));
                CHECK(value(f, 0, il, j) == (float)(100 * il + 10 * (outputs ? 1 : 4) + j));
                CHECK(value(f, 1, il, j) == (float)(1000 + 100 * il + 10 * (outputs ? 0 : 1) + j));
            }
        }
        for (int i = 0; i < N_PROMPTS * N_LAYER; ++i) {
            CHECK(f.captured[i] == 1);
        }
        CHECK(tear_down(f).code == EDGECAL_OK);
    }
}

/* Two streams of 2 floats under another name, their rows side by side or one stream after the other. */
static void test_streams(void) {
    enum { WIDTH = N_EMBD / 2, N_TOKENS = 5, N_OUTPUTS = 2 };
    for (int by_stream = 0; by_stream <= 1; ++by_stream) {
        const edgecal_residual residual = {"l_last", WIDTH, 2, by_stream == 1};
        fixture f = set_up(PARTS, 1, ROWS, 2);
        edgecal_capture_free(f.capture);
        f.capture = edgecal_capture_new(&GETTERS, N_LAYER, &residual);
        CHECK(edgecal_capture_plan(f.capture, f.destination, f.captured, N_PROMPTS, PARTS, 1, ROWS, 2));
        for (int il = 0; il < N_LAYER; ++il) {
            const int n_rows = il == N_LAYER - 1 ? N_OUTPUTS : N_TOKENS;
            float data[2 * N_TOKENS * WIDTH]; /* 100 * token + 10 * stream + place */
            for (int i = 0; i < 2 * n_rows; ++i) {
                const int token = by_stream ? i % n_rows : i / 2;
                const int stream = by_stream ? i / n_rows : i % 2;
                for (int j = 0; j < WIDTH; ++j) {
                    data[i * WIDTH + j] = (float)(100 * token + 10 * stream + j);
                }
            }
            char name[32];
            snprintf(name, sizeof name, "l_last-%d", il);
            struct ggml_tensor tensor = {name, 2 * n_rows, sizeof(float) * 2 * (size_t)n_rows * WIDTH, 4, true, data};
            CHECK(edgecal_capture_eval(&tensor, true, f.capture));
            CHECK(edgecal_capture_eval(&tensor, false, f.capture));
            for (int j = 0; j < N_EMBD; ++j) {
                const int place = 10 * (j / WIDTH) + j % WIDTH;
                CHECK(value(f, 2, il, j) == (float)(100 * (n_rows == N_OUTPUTS ? 0 : 1) + place));
                CHECK(value(f, 0, il, j) == (float)(100 * (n_rows == N_OUTPUTS ? 1 : 4) + place));
            }
        }
        CHECK(tear_down(f).code == EDGECAL_OK);

        f = set_up(PARTS, 1, ROWS, 2);
        edgecal_capture_free(f.capture);
        f.capture = edgecal_capture_new(&GETTERS, N_LAYER, &residual);
        CHECK(edgecal_capture_plan(f.capture, f.destination, f.captured, N_PROMPTS, PARTS, 1, ROWS, 2));
        struct ggml_tensor one_stream = {"l_last-0", N_TOKENS, sizeof(float) * N_TOKENS * WIDTH, 4, true, NULL};
        CHECK(!edgecal_capture_eval(&one_stream, true, f.capture));
        const edgecal_report report = tear_down(f);
        CHECK(report.code == EDGECAL_ROW_COUNT && report.got_rows == 5 && report.expected_rows == 10);
        CHECK(report.expected_outputs == 4);
    }
}

static void test_nothing_is_asked_for_where_no_row_is_wanted(void) {
    const edgecal_microbatch parts[2] = {{4, 0, 0, 0}, {1, 1, 0, 1}};
    const edgecal_row rows[1] = {{0, 0, 0}};
    fixture f = set_up(parts, 2, rows, 1);
    CHECK(!show(f, 0, 0, 4));
    CHECK(!show(f, 0, 1, 4));
    CHECK(!show(f, 0, 2, 0)); /* zero rows and zero bytes */
    CHECK(show(f, 1, 0, 1));
    CHECK(show(f, 1, 1, 1));
    CHECK(show(f, 1, 2, 1));
    CHECK(value(f, 0, 2, 3) == 1203.0f);
    CHECK(tear_down(f).code == EDGECAL_OK);
}

static void test_names_match_exactly(void) {
    static const char *const others[] = {"l_out-0 (view)", "l_out-",   "l_out-00", "l_out-01", "l_out--1", "l_out-+0",
                                         "l_out-0x0",      "l_out- 0", "l_out",    "al_out-0", "",         "L_OUT-0"};
    fixture f = set_up(PARTS, 2, ROWS, 3);
    for (size_t i = 0; i < sizeof others / sizeof *others; ++i) {
        CHECK(!show_as(f, plain(others[i], 5), 0, 0));
    }
    CHECK(!show_as(f, plain(NULL, 5), 0, 0));
    edgecal_report report = tear_down(f);
    CHECK(report.code == EDGECAL_BLOCK_MISSING && report.block == 0 && report.microbatch == 0);

    static const char *const beyond[] = {"l_out-3", "l_out-2147483647", "l_out-99999999999999999999999999999"};
    for (size_t i = 0; i < sizeof beyond / sizeof *beyond; ++i) {
        f = set_up(PARTS, 2, ROWS, 3);
        CHECK(!show_as(f, plain(beyond[i], 5), 0, 0));
        CHECK(tear_down(f).code == EDGECAL_BLOCK_BEYOND);
    }
}

static edgecal_report shown_first(struct ggml_tensor tensor) {
    fixture f = set_up(PARTS, 2, ROWS, 3);
    CHECK(!show_as(f, tensor, 0, 0));
    CHECK(f.captured[0] == 0 && value(f, 0, 0, 0) == -1.0f);
    return tear_down(f);
}

static void test_unfit_tensors(void) {
    struct ggml_tensor tensor = plain("l_out-0", 5);
    tensor.contiguous = false;
    edgecal_report report = shown_first(tensor);
    CHECK(report.code == EDGECAL_NOT_CONTIGUOUS && report.block == 0 && report.got_rows == 5);

    tensor = plain("l_out-0", 5);
    tensor.element_bytes = 2;
    tensor.n_bytes /= 2;
    report = shown_first(tensor);
    CHECK(report.code == EDGECAL_ELEMENT_SIZE && report.got_element_bytes == 2);
    tensor.n_bytes *= 2; /* twice as wide, so that the bytes fit */
    CHECK(shown_first(tensor).code == EDGECAL_ELEMENT_SIZE);

    tensor = plain("l_out-0", 5);
    tensor.n_bytes -= 4;
    report = shown_first(tensor);
    CHECK(report.code == EDGECAL_ROW_SIZE && report.got_bytes == 76 && report.expected_row_bytes == 16);

    for (int64_t n_rows = 0; n_rows < 5; ++n_rows) { /* 2 is the number of outputs: only in the last block */
        report = shown_first(plain("l_out-0", n_rows));
        CHECK(report.code == EDGECAL_ROW_COUNT && report.got_rows == n_rows);
        CHECK(report.expected_rows == 5 && report.expected_outputs == 2);
    }
    CHECK(shown_first(plain("l_out-0", 6)).code == EDGECAL_ROW_COUNT);

    fixture f = set_up(PARTS, 2, ROWS, 3);
    CHECK(show(f, 0, 0, 5) && show(f, 0, 1, 5) && !show(f, 0, 2, 3));
    report = tear_down(f);
    CHECK(report.code == EDGECAL_ROW_COUNT && report.block == 2 && report.got_rows == 3);
}

static void test_turns(void) {
    fixture f = set_up(PARTS, 2, ROWS, 3);
    CHECK(show(f, 0, 0, 5) && !show(f, 0, 2, 2));
    edgecal_report report = tear_down(f);
    CHECK(report.code == EDGECAL_BLOCK_MISSING && report.block == 1 && report.got_rows == -1);

    f = set_up(PARTS, 2, ROWS, 3); /* the same name twice in a graph */
    CHECK(show(f, 0, 0, 5) && !show(f, 0, 0, 5));
    report = tear_down(f);
    CHECK(report.code == EDGECAL_BLOCK_REPEATED && report.block == 0);

    f = set_up(PARTS, 2, ROWS, 3); /* one micro-batch more than planned */
    for (int k = 0; k < 2; ++k) {
        CHECK(show(f, k, 0, PARTS[k].n_tokens) && show(f, k, 1, PARTS[k].n_tokens));
        CHECK(show(f, k, 2, PARTS[k].n_outputs));
    }
    CHECK(!show(f, 2, 0, 5));
    report = tear_down(f);
    CHECK(report.code == EDGECAL_BLOCK_REPEATED && report.microbatch == 2 && report.n_microbatches == 2);

    f = set_up(PARTS, 2, ROWS, 3); /* one fewer */
    CHECK(show(f, 0, 0, 5) && show(f, 0, 1, 5) && show(f, 0, 2, 2));
    report = tear_down(f);
    CHECK(report.code == EDGECAL_BLOCK_MISSING && report.block == 0 && report.microbatch == 1);

    f = set_up(PARTS, 2, ROWS, 3); /* requested and never passed */
    struct ggml_tensor tensor = plain("l_out-0", 5);
    CHECK(edgecal_capture_eval(&tensor, true, f.capture));
    report = tear_down(f);
    CHECK(report.code == EDGECAL_BLOCK_MISSING && report.block == 0);

    f = set_up(PARTS, 2, ROWS, 3); /* passed and never requested */
    CHECK(edgecal_capture_eval(&tensor, false, f.capture));
    CHECK(tear_down(f).code == EDGECAL_UNEXPECTED);
}

static void test_first_error_wins_and_computation_goes_on(void) {
    fixture f = set_up(PARTS, 2, ROWS, 3);
    CHECK(!show(f, 0, 0, 3));
    struct ggml_tensor tensor = plain("l_out-7", 5);
    CHECK(!edgecal_capture_eval(&tensor, true, f.capture));
    CHECK(edgecal_capture_eval(&tensor, false, f.capture)); /* true: do not stop computing */
    const edgecal_report report = tear_down(f);
    CHECK(report.code == EDGECAL_ROW_COUNT && report.got_rows == 3);
}

static void test_wanted_token_without_output(void) {
    const edgecal_microbatch parts[1] = {{5, 2, 0, 1}};
    const edgecal_row rows[1] = {{3, -1, 0}};
    for (int every_row = 0; every_row <= 1; ++every_row) {
        fixture f = set_up(parts, 1, rows, 1);
        CHECK(show(f, 0, 0, 5) && show(f, 0, 1, 5) && show(f, 0, 2, every_row ? 5 : 2));
        CHECK(f.captured[2] == every_row);
        CHECK(tear_down(f).code == (every_row ? EDGECAL_OK : EDGECAL_NO_OUTPUT_ROW));
    }
}

static bool plans(edgecal_microbatch part, edgecal_row row) {
    float destination[N_PROMPTS * N_LAYER * N_EMBD];
    uint8_t captured[N_PROMPTS * N_LAYER];
    edgecal_capture *capture = edgecal_capture_new(&GETTERS, N_LAYER, &RESIDUAL);
    const bool planned = edgecal_capture_plan(capture, destination, captured, N_PROMPTS, &part, 1, &row, 1);
    edgecal_capture_free(capture);
    return planned;
}

static void test_unsound_plans_are_refused(void) {
    const edgecal_microbatch part = {5, 2, 0, 1};
    const edgecal_row row = {4, 1, 2};
    CHECK(plans(part, row));
    const edgecal_microbatch bad_parts[] = {{0, 0, 0, 1}, {5, 6, 0, 1}, {5, -1, 0, 1}, {5, 2, 1, 1},
                                            {5, 2, 0, 0}, {5, 2, 0, 2}, {-5, 2, 0, 1}};
    for (size_t i = 0; i < sizeof bad_parts / sizeof *bad_parts; ++i) {
        CHECK(!plans(bad_parts[i], row));
    }
    const edgecal_row bad_rows[] = {{5, 1, 2}, {-1, 1, 2}, {4, 2, 2}, {4, -2, 2}, {4, 1, 3}, {4, 1, -1}};
    for (size_t i = 0; i < sizeof bad_rows / sizeof *bad_rows; ++i) {
        CHECK(!plans(part, bad_rows[i]));
    }
    edgecal_getters getters = GETTERS;
    getters.nbytes = NULL;
    CHECK(edgecal_capture_new(&getters, N_LAYER, &RESIDUAL) == NULL);
    CHECK(edgecal_capture_new(NULL, N_LAYER, &RESIDUAL) == NULL);
    CHECK(edgecal_capture_new(&GETTERS, 0, &RESIDUAL) == NULL);
    CHECK(edgecal_capture_new(&GETTERS, N_LAYER, NULL) == NULL);
    const edgecal_residual bad[] = {
        {"l_out", -1, 1, false}, {"l_out", N_EMBD, 0, false}, {NULL, N_EMBD, 1, false},
        {"", N_EMBD, 1, false},  {"a name of thirty-one characters", N_EMBD, 1, false},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; ++i) {
        CHECK(edgecal_capture_new(&GETTERS, N_LAYER, &bad[i]) == NULL);
    }
    edgecal_capture_free(NULL);
}

static void test_two_captures_do_not_meet(void) {
    fixture a = set_up(PARTS, 2, ROWS, 3);
    fixture b = set_up(PARTS, 2, ROWS, 3);
    CHECK(show(a, 0, 0, 5));
    CHECK(show(b, 7, 0, 5));
    CHECK(show(a, 0, 1, 5));
    CHECK(value(a, 2, 0, 0) == 10.0f && value(b, 2, 0, 0) == 7010.0f);
    CHECK(value(b, 2, 1, 0) == -1.0f);
    tear_down(a);
    tear_down(b);
}

int main(void) {
    CHECK(edgecal_hook_abi() == EDGECAL_HOOK_ABI);
    test_rows_are_copied();
    test_streams();
    test_nothing_is_asked_for_where_no_row_is_wanted();
    test_names_match_exactly();
    test_unfit_tensors();
    test_turns();
    test_first_error_wins_and_computation_goes_on();
    test_wanted_token_without_output();
    test_unsound_plans_are_refused();
    test_two_captures_do_not_meet();
    printf("%d checks, %d failed\n", n_checked, n_failed);
    return n_failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
