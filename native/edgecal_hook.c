#include "edgecal_hook.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

enum { NOT_A_BLOCK = -1, MAX_NAME_BYTES = 31 };

struct edgecal_capture {
    edgecal_getters getters;
    int32_t n_layer;
    char name[MAX_NAME_BYTES + 1]; /* including the hyphen */
    size_t name_bytes;
    int64_t n_streams;
    bool by_stream;
    size_t row_bytes; /* of one stream's row of one token */

    float *destination;
    uint8_t *captured;
    edgecal_microbatch *microbatches;
    edgecal_row *rows;
    int32_t n_microbatches;

    /* The next block; blocks must come as 0, 1, .., n_layer - 1 for every micro-batch in turn. */
    int32_t microbatch;
    int32_t block;

    /* The block that was requested and has not arrived yet, and which rows its tensor holds. */
    int32_t pending_block;
    int32_t pending_microbatch;
    bool pending_outputs_only;

    edgecal_report report;
};

int32_t edgecal_hook_abi(void) { return EDGECAL_HOOK_ABI; }

/* The number in `<name>-<number>`, NOT_A_BLOCK for any other name. Digits only, no leading zero, so that
 * names with the same beginning ("l_out-0 (view)") do not match. Numbers too large for a block become INT32_MAX. */
static int32_t block_of(const edgecal_capture *capture, const char *name) {
    if (name == NULL || strncmp(name, capture->name, capture->name_bytes) != 0) {
        return NOT_A_BLOCK;
    }
    const char *digit = name + capture->name_bytes;
    if (*digit == '\0' || (digit[0] == '0' && digit[1] != '\0')) {
        return NOT_A_BLOCK;
    }
    int32_t number = 0;
    for (; *digit != '\0'; ++digit) {
        if (*digit < '0' || *digit > '9') {
            return NOT_A_BLOCK;
        }
        const int32_t value = *digit - '0';
        number = number > (INT32_MAX - value) / 10 ? INT32_MAX : number * 10 + value;
    }
    return number;
}

static edgecal_report empty_report(void) {
    const edgecal_report report = {
        .code = EDGECAL_OK,
        .block = -1,
        .microbatch = -1,
        .n_microbatches = 0,
        .got_rows = -1,
        .got_bytes = -1,
        .got_element_bytes = -1,
        .expected_rows = -1,
        .expected_outputs = -1,
        .expected_row_bytes = -1,
    };
    return report;
}

/* Keeps the first error. `tensor` is NULL if the error is that there was none. */
static void record(edgecal_capture *capture, int32_t code, int32_t block, const struct ggml_tensor *tensor) {
    if (capture->report.code != EDGECAL_OK) {
        return;
    }
    edgecal_report report = empty_report();
    report.code = code;
    report.block = block;
    report.microbatch = capture->microbatch;
    report.n_microbatches = capture->n_microbatches;
    report.expected_row_bytes = (int64_t)capture->row_bytes;
    if (tensor != NULL) {
        report.got_rows = capture->getters.nrows(tensor);
        report.got_bytes = (int64_t)capture->getters.nbytes(tensor);
        report.got_element_bytes = (int64_t)capture->getters.element_size(tensor);
    }
    if (capture->microbatch < capture->n_microbatches) {
        report.expected_rows = capture->n_streams * capture->microbatches[capture->microbatch].n_tokens;
        report.expected_outputs = capture->n_streams * capture->microbatches[capture->microbatch].n_outputs;
    }
    capture->report = report;
}

static void forget_plan(edgecal_capture *capture) {
    free(capture->microbatches);
    free(capture->rows);
    capture->microbatches = NULL;
    capture->rows = NULL;
    capture->n_microbatches = 0;
    capture->destination = NULL;
    capture->captured = NULL;
    capture->microbatch = 0;
    capture->block = 0;
    capture->pending_block = NOT_A_BLOCK;
}

edgecal_capture *edgecal_capture_new(const edgecal_getters *getters, int32_t n_layer,
                                     const edgecal_residual *residual) {
    if (getters == NULL || getters->get_name == NULL || getters->nrows == NULL || getters->nbytes == NULL ||
        getters->element_size == NULL || getters->is_contiguous == NULL || getters->tensor_get == NULL) {
        return NULL;
    }
    if (n_layer <= 0 || residual == NULL || residual->n_embd <= 0 || residual->n_streams <= 0 ||
        residual->name == NULL) {
        return NULL;
    }
    const size_t name_bytes = strlen(residual->name);
    if (name_bytes == 0 || name_bytes >= MAX_NAME_BYTES) {
        return NULL;
    }
    edgecal_capture *capture = calloc(1, sizeof *capture);
    if (capture == NULL) {
        return NULL;
    }
    capture->getters = *getters;
    capture->n_layer = n_layer;
    memcpy(capture->name, residual->name, name_bytes);
    capture->name[name_bytes] = '-';
    capture->name_bytes = name_bytes + 1;
    capture->n_streams = residual->n_streams;
    capture->by_stream = residual->by_stream;
    capture->row_bytes = (size_t)residual->n_embd * sizeof(float);
    capture->report = empty_report();
    forget_plan(capture);
    return capture;
}

void edgecal_capture_free(edgecal_capture *capture) {
    if (capture != NULL) {
        forget_plan(capture);
        free(capture);
    }
}

/* Whether rows lie inside their micro-batch and their prompt, and the micro-batches divide them up in order. */
static bool is_sound(const edgecal_microbatch *microbatches, int32_t n_microbatches, const edgecal_row *rows,
                     int32_t n_rows, int32_t n_prompts) {
    int32_t next = 0;
    for (int32_t k = 0; k < n_microbatches; ++k) {
        const edgecal_microbatch *part = &microbatches[k];
        if (part->n_tokens <= 0 || part->n_outputs < 0 || part->n_outputs > part->n_tokens ||
            part->row_begin != next || part->row_end < part->row_begin || part->row_end > n_rows) {
            return false;
        }
        for (int32_t r = part->row_begin; r < part->row_end; ++r) {
            if (rows[r].token_row < 0 || rows[r].token_row >= part->n_tokens || rows[r].output_row < -1 ||
                rows[r].output_row >= part->n_outputs || rows[r].prompt < 0 || rows[r].prompt >= n_prompts) {
                return false;
            }
        }
        next = part->row_end;
    }
    return next == n_rows;
}

bool edgecal_capture_plan(edgecal_capture *capture, float *destination, uint8_t *captured, int32_t n_prompts,
                          const edgecal_microbatch *microbatches, int32_t n_microbatches,
                          const edgecal_row *rows, int32_t n_rows) {
    forget_plan(capture);
    capture->report = empty_report();
    if (destination == NULL || captured == NULL || microbatches == NULL || n_microbatches <= 0 ||
        n_prompts <= 0 || n_rows < 0 || (rows == NULL && n_rows > 0) ||
        !is_sound(microbatches, n_microbatches, rows, n_rows, n_prompts)) {
        return false;
    }
    const size_t n_parts = (size_t)n_microbatches;
    const size_t n_wanted = (size_t)n_rows;
    capture->microbatches = malloc(n_parts * sizeof *microbatches);
    capture->rows = malloc((n_wanted > 0 ? n_wanted : 1) * sizeof *rows);
    if (capture->microbatches == NULL || capture->rows == NULL) {
        forget_plan(capture);
        return false;
    }
    memcpy(capture->microbatches, microbatches, n_parts * sizeof *microbatches);
    if (n_wanted > 0) {
        memcpy(capture->rows, rows, n_wanted * sizeof *rows);
    }
    capture->n_microbatches = n_microbatches;
    capture->destination = destination;
    capture->captured = captured;
    return true;
}

/* Whether this is the block that must come next; if so, moves on to the following one. */
static bool take_turn(edgecal_capture *capture, int32_t block, const struct ggml_tensor *tensor) {
    if (block >= capture->n_layer) {
        record(capture, EDGECAL_BLOCK_BEYOND, block, tensor);
        return false;
    }
    if (capture->microbatch >= capture->n_microbatches || block < capture->block) {
        record(capture, EDGECAL_BLOCK_REPEATED, block, tensor);
        return false;
    }
    if (block > capture->block) {
        record(capture, EDGECAL_BLOCK_MISSING, capture->block, NULL);
        return false;
    }
    return true;
}

/* Checks shape and type. Before the last block every token has a row; the last one holds either every token
 * or just the outputs, of which there may be none at all: a tensor of zero rows and zero bytes. */
static bool check_tensor(edgecal_capture *capture, int32_t block, const struct ggml_tensor *tensor,
                         bool *outputs_only) {
    const edgecal_microbatch *part = &capture->microbatches[capture->microbatch];
    const int64_t n_rows = capture->getters.nrows(tensor);
    const size_t n_bytes = capture->getters.nbytes(tensor);
    const bool is_last = block == capture->n_layer - 1;

    *outputs_only = n_rows != capture->n_streams * part->n_tokens;
    if (*outputs_only && !(is_last && n_rows == capture->n_streams * part->n_outputs)) {
        record(capture, EDGECAL_ROW_COUNT, block, tensor);
        return false;
    }
    if (n_bytes != (size_t)n_rows * capture->row_bytes) {
        const size_t element = capture->getters.element_size(tensor);
        record(capture, element == sizeof(float) ? EDGECAL_ROW_SIZE : EDGECAL_ELEMENT_SIZE, block, tensor);
        return false;
    }
    if (n_rows > 0 && capture->getters.element_size(tensor) != sizeof(float)) {
        record(capture, EDGECAL_ELEMENT_SIZE, block, tensor);
        return false;
    }
    if (n_rows > 0 && !capture->getters.is_contiguous(tensor)) {
        record(capture, EDGECAL_NOT_CONTIGUOUS, block, tensor);
        return false;
    }
    return true;
}

/* The shape is known before the tensor is computed, so everything is checked here, and llama.cpp has to
 * stop after a block only if a row of this micro-batch is wanted. */
static bool want(edgecal_capture *capture, int32_t block, const struct ggml_tensor *tensor) {
    bool outputs_only = false;
    if (!take_turn(capture, block, tensor) || !check_tensor(capture, block, tensor, &outputs_only)) {
        return false;
    }
    const edgecal_microbatch *part = &capture->microbatches[capture->microbatch];
    const bool has_rows = part->row_begin < part->row_end;
    capture->pending_block = has_rows ? block : NOT_A_BLOCK;
    capture->pending_microbatch = capture->microbatch;
    capture->pending_outputs_only = outputs_only;
    capture->block = block + 1;
    if (capture->block == capture->n_layer) {
        capture->block = 0;
        capture->microbatch += 1;
    }
    return has_rows;
}

static void copy_rows(edgecal_capture *capture, const struct ggml_tensor *tensor) {
    const edgecal_microbatch *part = &capture->microbatches[capture->pending_microbatch];
    const size_t block = (size_t)capture->pending_block;
    const size_t n_layer = (size_t)capture->n_layer;
    const size_t n_streams = (size_t)capture->n_streams;
    const size_t n_rows = (size_t)(capture->pending_outputs_only ? part->n_outputs : part->n_tokens);
    const size_t n_pieces = capture->by_stream ? n_streams : 1;
    const size_t piece_bytes = capture->row_bytes * n_streams / n_pieces;
    for (int32_t r = part->row_begin; r < part->row_end; ++r) {
        const edgecal_row *row = &capture->rows[r];
        const int32_t source = capture->pending_outputs_only ? row->output_row : row->token_row;
        if (source < 0) {
            record(capture, EDGECAL_NO_OUTPUT_ROW, capture->pending_block, tensor);
            return;
        }
        const size_t slot = (size_t)row->prompt * n_layer + block;
        char *target = (char *)capture->destination + slot * n_streams * capture->row_bytes;
        for (size_t piece = 0; piece < n_pieces; ++piece) {
            capture->getters.tensor_get(tensor, target + piece * piece_bytes,
                                        (piece * n_rows + (size_t)source) * piece_bytes, piece_bytes);
        }
        capture->captured[slot] = 1;
    }
}

bool edgecal_capture_eval(struct ggml_tensor *tensor, bool ask, void *user) {
    edgecal_capture *capture = user;
    if (capture->report.code != EDGECAL_OK) {
        return !ask;
    }
    const int32_t block = block_of(capture, capture->getters.get_name(tensor));
    if (ask) {
        return block != NOT_A_BLOCK && want(capture, block, tensor);
    }
    if (block == NOT_A_BLOCK || block != capture->pending_block) {
        record(capture, EDGECAL_UNEXPECTED, block, tensor);
        return true;
    }
    copy_rows(capture, tensor);
    capture->pending_block = NOT_A_BLOCK;
    return true;
}

int32_t edgecal_capture_finish(edgecal_capture *capture, edgecal_report *report) {
    const bool is_pending = capture->pending_block != NOT_A_BLOCK;
    if (is_pending || capture->microbatch < capture->n_microbatches) {
        record(capture, EDGECAL_BLOCK_MISSING, is_pending ? capture->pending_block : capture->block, NULL);
    }
    const int32_t code = capture->report.code;
    *report = capture->report;
    forget_plan(capture);
    return code;
}
